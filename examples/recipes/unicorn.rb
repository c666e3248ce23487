# For `sidecar run --slow-start`: a new process every moment, and an old one leaves for each.
worker_processes 3
preload_app true
before_fork { |_server, _worker| sleep 0.2 }
