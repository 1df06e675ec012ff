"""What kubeadm is told, rendered from the site: pure functions from values to text."""
