my $app = sub {
    return [200, ['Content-Type' => 'text/plain'], ["hello from generation $ENV{SERVER_STARTER_GENERATION}\n"]];
};
