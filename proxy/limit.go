package proxy

import (
	"net"
	"runtime"
	"runtime/debug"
	"sync"
)

// A burst leaves the runtime with memory that it would give back over many
// minutes. Once a burst's connections are gone, that is done at once: at this
// many connections a burst begins to matter, and at this fraction of them it is
// over.
const (
	burst     = 256
	burstOver = 16
)

// limited accepts no more than a number of connections at once; further ones
// wait in the system's queue. Unlike x/net's, its connections keep CloseWrite,
// without which net/http's last words to a client that still sends are lost.
type limited struct {
	net.Listener
	slots chan struct{}
	done  chan struct{}
	once  sync.Once

	mu   sync.Mutex
	open int
	peak int // of open, since memory was last given back
}

func limit(l net.Listener, most int) net.Listener {
	return &limited{Listener: l, slots: make(chan struct{}, most), done: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.done:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	l.opened()
	return &slotted{Conn: conn, release: sync.OnceFunc(l.closed)}, nil
}

func (l *limited) opened() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open++
	l.peak = max(l.peak, l.open)
}

// closed gives a slot back, and after a burst the memory.
func (l *limited) closed() {
	<-l.slots
	l.mu.Lock()
	l.open--
	over := l.peak >= burst && l.open <= l.peak/burstOver
	if over {
		l.peak = l.open
	}
	l.mu.Unlock()
	if over {
		runtime.GC() // pools of buffers outlive the first collection
		debug.FreeOSMemory()
	}
}

// Close implements net.Listener; it also ends an Accept that waits for a slot.
func (l *limited) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.Listener.Close()
}

// slotted gives its slot back when it is closed.
type slotted struct {
	net.Conn
	release func()
}

// Close implements net.Conn.
func (c *slotted) Close() error {
	defer c.release()
	return c.Conn.Close()
}

// CloseWrite half-closes the connection, if it can be.
func (c *slotted) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
