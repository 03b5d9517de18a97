"""Console commands: vmr-data, vmr-score, vmr-report, and the frame of every model command."""
