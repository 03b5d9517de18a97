"""RGNet: moments in videos of minutes to hours, by one network that retrieves windows and grounds in them."""
