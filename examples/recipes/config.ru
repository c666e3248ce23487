run ->(env) { [200, { "content-type" => "text/plain" }, ["hello from generation #{ENV['SERVER_STARTER_GENERATION']}\n"]] }
