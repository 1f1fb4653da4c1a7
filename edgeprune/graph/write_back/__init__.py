"""From a shrunk graph back to the user's own module, and to a freshly built one."""
