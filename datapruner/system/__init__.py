"""What the process and the machine do to us: files that appear whole, full disks, panics, closed pipes."""
