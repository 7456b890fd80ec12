package redirect_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/svidecar/svidecar/deploy/redirect"
	"github.com/svidecar/svidecar/exchange"
	"github.com/svidecar/svidecar/internal/secret"
	"github.com/svidecar/svidecar/proxy"
)

const tokenPath = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net"

// methods that the machine can do without further programs.
var methods = []redirect.Method{redirect.NFTables, redirect.Loopback}

type fakeTokens struct{}

func (fakeTokens) Token(context.Context, exchange.Key) (exchange.Token, error) {
	return exchange.NewToken(secret.New("the-token-of-this-test"), time.Now(), time.Hour, 0), nil
}

func (f fakeTokens) Refresh(ctx context.Context, key exchange.Key, _ string) (exchange.Token, error) {
	return f.Token(ctx, key)
}

func (fakeTokens) Stats() exchange.Stats { return exchange.Stats{} }

// sidecar is a real server on tokens (host and port), until the end of the test.
// It returns the addresses of its listeners.
func sidecar(t *testing.T, tokens string) (tokenPort int, ops string) {
	t.Helper()
	policy, err := proxy.NewPolicy(proxy.PolicyConfig{Identities: []proxy.Identity{
		{ClientID: "11111111-2222-4333-8444-555555555555", Tenant: "5d0e7a8c-1b6f-4c3e-9a2d-7f4b8c6e1a30"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := proxy.New(proxy.Config{Tokens: fakeTokens{}, Policy: policy, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	a, b := listen(t, tokens), listen(t, "127.0.0.1:0")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Run(ctx, a, b)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return portOf(a), b.Addr().String()
}

func listen(t *testing.T, at string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func portOf(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

// stranger is a server that answers everything with text.
func stranger(t *testing.T, at, text string) int {
	t.Helper()
	l := listen(t, at)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) })}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() { _ = s.Close(); <-done })
	return portOf(l)
}

// How long an answer is waited for that must come, and one that must not.
const (
	patience   = 10 * time.Second
	impatience = 100 * time.Millisecond
)

// ask is what an app does: a new connection, and one request.
func ask(t *testing.T, host string, wait time.Duration) string {
	t.Helper()
	requireClosed(t)
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+tokenPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Metadata", "true")
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return string(body)
}

func requireToken(t *testing.T) {
	t.Helper()
	if got := ask(t, address, patience); !strings.Contains(got, "the-token-of-this-test") {
		t.Errorf("%s: got %q, want a token", address, got)
	}
}

func requireNoToken(t *testing.T) {
	t.Helper()
	if got := ask(t, address, impatience); strings.Contains(got, "the-token-of-this-test") {
		t.Errorf("%s: the sidecar answered", address)
	}
}

func verify(t *testing.T, p *redirect.Plan, ops string) error {
	t.Helper()
	requireClosed(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*impatience)
	defer cancel()
	return p.Verify(ctx, ops)
}

// wantError wants one line that holds text.
func wantError(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one with %q", text)
	} else if got := err.Error(); !strings.Contains(got, text) || strings.Contains(got, "\n") || !strings.HasPrefix(got, "redirect: ") {
		t.Errorf("got %q, want a line with %q", got, text)
	}
}

// applied is a plan that is in force until the end of the test.
func applied(t *testing.T, cfg redirect.Config) *redirect.Plan {
	t.Helper()
	p := plan(t, cfg)
	t.Cleanup(func() {
		if err := p.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := p.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	return p
}

// serveAs starts a sidecar where the method wants it, once the method is in
// force.
func serveAs(t *testing.T, method redirect.Method) (p *redirect.Plan, ops string) {
	t.Helper()
	if method == redirect.Loopback {
		p = applied(t, redirect.Config{Method: method})
		_, ops = sidecar(t, address+":80")
		return p, ops
	}
	port, ops := sidecar(t, "127.0.0.1:0")
	return applied(t, redirect.Config{Method: method, Port: port}), ops
}

// TestAppReachesSidecar: an app that asks 169.254.169.254 is answered by the
// sidecar, and nothing else of it changes.
func TestAppReachesSidecar(t *testing.T) {
	for _, method := range methods {
		t.Run(string(method), func(t *testing.T) {
			need(t)
			requireNoToken(t)
			p, ops := serveAs(t, method)
			requireToken(t)
			if err := verify(t, p, ops); err != nil {
				t.Error(err)
			}
			stranger(t, podIP+":80", "untouched")
			for _, other := range []string{podIP, podIP + ":80"} {
				if got := ask(t, other, patience); got != "untouched" {
					t.Errorf("%s: got %q", other, got)
				}
			}
			for _, other := range []string{address + ":81", "169.254.169.253"} {
				if got := ask(t, other, impatience); strings.Contains(got, "{") {
					t.Errorf("%s: the sidecar answered %q", other, got)
				}
			}
		})
	}
}

// TestApplyTwice: nothing is doubled, and removal leaves nothing.
func TestApplyTwice(t *testing.T) {
	for _, method := range methods {
		t.Run(string(method), func(t *testing.T) {
			need(t)
			p, ops := serveAs(t, method)
			for range 2 {
				if err := p.Apply(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if n := countRules(t); method == redirect.NFTables && n != 1 {
				t.Errorf("there are %d rules, want 1", n)
			}
			requireToken(t)
			for range 2 {
				if err := p.Remove(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			wantError(t, p.Check(t.Context()), "reading back")
			requireNoToken(t)
			wantError(t, verify(t, p, ops), "do not reach the sidecar")
		})
	}
}

// TestApplyTogether: two that run at once agree.
func TestApplyTogether(t *testing.T) {
	for _, method := range methods {
		t.Run(string(method), func(t *testing.T) {
			need(t)
			p, _ := serveAs(t, method)
			var all sync.WaitGroup
			for range 4 {
				all.Go(func() {
					for range 3 {
						if err := p.Apply(context.Background()); err != nil {
							t.Error(err)
						}
					}
				})
			}
			all.Wait()
			if n := countRules(t); method == redirect.NFTables && n != 1 {
				t.Errorf("there are %d rules, want 1", n)
			}
			requireToken(t)
		})
	}
}

// TestReplacementHasNoGap: while the rules are replaced, no request gets past.
func TestReplacementHasNoGap(t *testing.T) {
	need(t)
	p, _ := serveAs(t, redirect.NFTables)
	stop := make(chan struct{})
	var replacing sync.WaitGroup
	replacing.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if err := p.Apply(context.Background()); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	for range 100 {
		requireToken(t)
	}
	close(stop)
	replacing.Wait()
}

// TestApplyReplacesWhatWasThere: an older plan's port, and what somebody put
// into the table.
func TestApplyReplacesWhatWasThere(t *testing.T) {
	need(t)
	old := stranger(t, "127.0.0.1:0", "old")
	applied(t, redirect.Config{Port: old})
	if got := ask(t, address, patience); got != "old" {
		t.Fatalf("got %q", got)
	}
	change(t, addDrop)
	p, ops := serveAs(t, redirect.NFTables)
	requireToken(t)
	if err := verify(t, p, ops); err != nil {
		t.Error(err)
	}
}

// TestOthersComeLater: a rule that takes all connections, as a service mesh's
// does, does not take ours, whichever was there first.
func TestOthersComeLater(t *testing.T) {
	need(t)
	mesh := stranger(t, "127.0.0.1:0", "mesh")
	change(t, func(conn *nftables.Conn) {
		c := conn.AddChain(&nftables.Chain{
			Name: "output", Table: conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "mesh"}),
			Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest,
		})
		conn.AddRule(&nftables.Rule{Table: c.Table, Chain: c, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
			&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(uint16(mesh))},
			&expr.Redir{RegisterProtoMin: 1},
		}})
	})
	t.Cleanup(func() {
		change(t, func(conn *nftables.Conn) {
			conn.DelTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "mesh"})
		})
	})
	if got := ask(t, address, patience); got != "mesh" {
		t.Fatalf("the mesh's rule does not work: %q", got)
	}
	serveAs(t, redirect.NFTables)
	requireToken(t)
}

// change does one transaction of nftables.
func change(t *testing.T, do func(*nftables.Conn)) {
	t.Helper()
	requireClosed(t)
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	do(conn)
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
}

func ours() (*nftables.Table, *nftables.Chain) {
	table := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "svidecar"}
	return table, &nftables.Chain{Name: "output", Table: table}
}

func addDrop(conn *nftables.Conn) {
	table, chain := ours()
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}})
}

// countRules counts those in all chains of our table.
func countRules(t *testing.T) (n int) {
	t.Helper()
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	chains, err := conn.ListChains()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range chains {
		if c.Table.Name != "svidecar" {
			continue
		}
		rules, err := conn.GetRules(c.Table, c)
		if err != nil {
			t.Fatal(err)
		}
		n += len(rules)
	}
	return n
}

// rebuild makes the chain again, with the rule that it has.
func rebuild(conn *nftables.Conn, hook *nftables.ChainHook, priority nftables.ChainPriority) {
	table, chain := ours()
	rules, _ := conn.GetRules(table, chain) // if there are none, Check says something else
	conn.DelTable(table)
	conn.AddTable(table)
	chain.Type, chain.Hooknum, chain.Priority = nftables.ChainTypeNAT, hook, &priority
	conn.AddChain(chain)
	for _, r := range rules {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: r.Exprs})
	}
}

// TestCheckFindsChanges: any difference from the plan is one too many.
func TestCheckFindsChanges(t *testing.T) {
	table, chain := ours()
	accept := &expr.Verdict{Kind: expr.VerdictAccept}
	for name, tt := range map[string]struct {
		do   func(*nftables.Conn)
		says string
	}{
		"the table is gone":  {func(conn *nftables.Conn) { conn.DelTable(table) }, "there is no table"},
		"the rules are gone": {func(conn *nftables.Conn) { conn.FlushChain(chain) }, "has 0 rules"},
		"a rule after":       {addDrop, "has 2 rules"},
		"a rule before": {func(conn *nftables.Conn) {
			conn.InsertRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{accept}})
		}, "has 2 rules"},
		"one user is exempt": {func(conn *nftables.Conn) {
			conn.InsertRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
				&expr.Meta{Key: expr.MetaKeySKUID, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(1000)}, accept,
			}})
		}, "has 2 rules"},
		"another rule": {func(conn *nftables.Conn) {
			conn.FlushChain(chain)
			conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{accept}})
		}, "has 1 rules, want the one that is planned"},
		"another chain": {func(conn *nftables.Conn) {
			conn.AddChain(&nftables.Chain{
				Name: "before", Table: table, Type: nftables.ChainTypeNAT,
				Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityRef(-190),
			})
		}, "has 2 chains"},
		"another hook":     {func(conn *nftables.Conn) { rebuild(conn, nftables.ChainHookPrerouting, -110) }, "in another way"},
		"another priority": {func(conn *nftables.Conn) { rebuild(conn, nftables.ChainHookOutput, 100) }, "in another way"},
	} {
		t.Run(name, func(t *testing.T) {
			need(t)
			p := applied(t, redirect.Config{})
			if err := p.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
			change(t, tt.do)
			wantError(t, p.Check(t.Context()), tt.says)
		})
	}
	t.Run("another port", func(t *testing.T) {
		need(t)
		applied(t, redirect.Config{})
		wantError(t, plan(t, redirect.Config{Port: 8080}).Check(t.Context()), "reading back")
	})
}

// TestVerifyRefuses: only an answer of the sidecar whose health listener is
// asked counts.
func TestVerifyRefuses(t *testing.T) {
	need(t)
	port, ops := sidecar(t, "127.0.0.1:0")
	otherPort, otherOps := sidecar(t, "127.0.0.1:0")
	opsPort := func(at string) int {
		_, port, err := net.SplitHostPort(at)
		if err != nil {
			t.Fatal(err)
		}
		var n int
		if _, err := fmt.Sscan(port, &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	closedListener := listen(t, "127.0.0.1:0")
	nobody := portOf(closedListener)
	_ = closedListener.Close()
	for _, tt := range []struct {
		name string
		port int // of the redirection; 0 means none
		ops  string
		says string
	}{
		{"no redirection", 0, ops, "do not reach the sidecar: no answer"},
		{"nobody listens", nobody, ops, "do not reach the sidecar: connection refused"},
		{"another server", stranger(t, "127.0.0.1:0", "hello"), ops, "the answer is not svidecar's"},
		{"an empty proof", stranger(t, "127.0.0.1:0", `{"proof":""}`), ops, "holds no proof"},
		{"a made-up proof", stranger(t, "127.0.0.1:0", `{"proof":"`+strings.Repeat("00", 32)+`"}`), ops, "another sidecar"},
		{"the listener of health", opsPort(ops), ops, "do not reach the sidecar: HTTP 404"},
		{"another sidecar", otherPort, ops, "another sidecar"},
		{"another sidecar's health", port, otherOps, "another sidecar"},
		{"no health listener", port, fmt.Sprintf("127.0.0.1:%d", nobody), "health listener gives no proof: connection refused"},
		{"a stranger's health listener", port, fmt.Sprintf("127.0.0.1:%d", stranger(t, "127.0.0.1:0", "{}")), "health listener gives no proof: the answer holds no proof"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := plan(t, redirect.Config{})
			if tt.port != 0 {
				p = applied(t, redirect.Config{Port: tt.port})
			}
			wantError(t, verify(t, p, tt.ops), tt.says)
		})
	}
	p := applied(t, redirect.Config{Port: port})
	if err := verify(t, p, ops); err != nil {
		t.Errorf("the right one: %v", err)
	}
	change(t, func(conn *nftables.Conn) { _, chain := ours(); conn.FlushChain(chain) })
	wantError(t, verify(t, p, ops), "do not reach the sidecar")
}
