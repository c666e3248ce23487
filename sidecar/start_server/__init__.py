"""Server::Starter's command line over the same engine."""
