run ->(env) { [200, { "content-type" => "text/plain" }, ["ruby #{ENV['SERVER_STARTER_GENERATION']}\n"]] }
