# For `sidecar run --slow-start`: a new process every moment, and an old one leaves for each.
bind "tcp://127.0.0.1:8080"
workers 3
threads 1, 4
worker_check_interval 1
on_worker_fork { |_index| sleep 0.2 }
