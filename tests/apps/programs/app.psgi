my $app = sub {
    my $env = shift;
    return [200, ['Content-Type' => 'text/plain'], ["perl $ENV{SERVER_STARTER_GENERATION}\n"]];
};
