package publish

// HTTPServer lets tests see the bounds that would take long to meet.
var HTTPServer = (*Server).httpServer

// MaxConnections is the bound of connections.
const MaxConnections = maxConnections
