package chaos_test

import (
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// weather is what the link does to connections. The zero value is fair.
type weather struct {
	latency    time.Duration // of each piece, in each direction
	rate       int           // bytes per second of each direction; zero: no bound
	resetAfter int           // bytes from Entra after which a connection is reset; zero: never
	deaf       bool          // connections are accepted and dead, and those that are open die, for good
	hole       bool          // nothing passes on any connection until the weather changes
}

// link carries TCP connections to a target, through weather.
type link struct {
	address string

	mu       sync.Mutex
	listener net.Listener // nil while connections are refused
	target   string
	now      weather
	changed  chan struct{} // closed when now changes
	wires    map[*wire]bool
	running  sync.WaitGroup
}

// newLink listens on a port that no system gives to outgoing connections, so that
// it can be closed and opened again.
func newLink(target string) (*link, error) {
	l := &link{target: target, changed: make(chan struct{}), wires: map[*wire]bool{}}
	var err error
	for range 100 {
		l.address = net.JoinHostPort("127.0.0.1", strconv.Itoa(20000+rand.IntN(12000)))
		if err = l.open(); err == nil {
			return l, nil
		}
	}
	return nil, err
}

func (l *link) open() error {
	listener, err := net.Listen("tcp", l.address)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.listener = listener
	l.running.Go(func() { l.accept(listener) })
	return nil
}

// refuse makes the system refuse connections, and cuts those that are open.
func (l *link) refuse() error {
	l.mu.Lock()
	listener := l.listener
	l.listener = nil
	l.mu.Unlock()
	if listener == nil {
		return nil
	}
	err := listener.Close()
	l.cut()
	return err
}

func (l *link) accept(listener net.Listener) {
	for {
		near, err := listener.Accept()
		if err != nil {
			return
		}
		l.running.Go(func() { l.carry(near) })
	}
}

// carry serves one connection until either side ends it.
func (l *link) carry(near net.Conn) {
	w := &wire{link: l, near: near, done: make(chan struct{})}
	l.mu.Lock()
	target, refused := l.target, l.listener == nil
	w.dead.Store(l.now.deaf)
	l.wires[w] = true
	l.mu.Unlock()
	if refused { // it came in the moment of closing
		w.reset()
	}
	defer func() {
		l.mu.Lock()
		delete(l.wires, w)
		l.mu.Unlock()
	}()
	defer w.end()
	if w.dead.Load() {
		<-w.done
		return
	}
	far, err := net.Dial("tcp", target)
	if err != nil {
		w.reset()
		return
	}
	var pumps sync.WaitGroup
	pumps.Go(func() { defer w.end(); w.pump(far, near, false) })
	pumps.Go(func() { defer w.end(); w.pump(near, far, true) })
	<-w.done
	_ = far.Close()
	pumps.Wait()
}

// set changes the weather.
func (l *link) set(now weather) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now = now
	close(l.changed)
	l.changed = make(chan struct{})
	for w := range l.wires {
		if now.deaf {
			w.dead.Store(true)
		}
	}
}

func (l *link) look() (weather, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now, l.changed
}

// aim leads new connections elsewhere, and cuts the others.
func (l *link) aim(target string) {
	l.mu.Lock()
	l.target = target
	l.mu.Unlock()
	l.cut()
}

// cut resets all connections.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for w := range l.wires {
		w.reset()
	}
}

func (l *link) close() error {
	err := l.refuse()
	l.running.Wait()
	return err
}

// wire is one connection on the link.
type wire struct {
	link   *link
	near   net.Conn
	dead   atomic.Bool
	once   sync.Once
	done   chan struct{}
	passed int // bytes from Entra
}

func (w *wire) end() { w.once.Do(func() { close(w.done); _ = w.near.Close() }) }

func (w *wire) reset() {
	if tcp, ok := w.near.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	w.end()
}

func (w *wire) pump(to, from net.Conn, down bool) {
	buf := make([]byte, 4<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && !w.pass(to, buf[:n], down) || err != nil {
			return
		}
	}
}

// pass takes a piece through the weather, and reports whether the wire still
// stands.
func (w *wire) pass(to net.Conn, piece []byte, down bool) bool {
	now, ok := w.shelter()
	if !ok {
		return false
	}
	pause := now.latency
	if now.rate > 0 {
		pause += time.Duration(len(piece)) * time.Second / time.Duration(now.rate)
	}
	if pause > 0 {
		select {
		case <-time.After(pause):
		case <-w.done:
			return false
		}
	}
	if down {
		w.passed += len(piece)
	}
	if down && now.resetAfter > 0 && w.passed > now.resetAfter {
		w.reset()
		return false
	}
	_, err := to.Write(piece)
	return err == nil
}

// shelter waits while nothing passes.
func (w *wire) shelter() (weather, bool) {
	for {
		now, changed := w.link.look()
		if w.dead.Load() {
			<-w.done
			return now, false
		}
		if !now.hole {
			return now, true
		}
		select {
		case <-changed:
		case <-w.done:
			return now, false
		}
	}
}
