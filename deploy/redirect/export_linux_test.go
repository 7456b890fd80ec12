package redirect

// InitialNamespace lets a test look at a real machine's namespace, and do nothing to it.
var InitialNamespace = initialNamespace
