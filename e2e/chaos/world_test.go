package chaos_test

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/svidecar/svidecar/exchange/entratest"
	"github.com/svidecar/svidecar/internal/emulation"
	"github.com/svidecar/svidecar/mint"
)

// world is one sidecar, all that it depends on, and the clients that depend on it.
type world struct {
	t       testing.TB
	form    size
	cloud   *cloud
	link    *link
	tunnel  *tunnel // nil unless Entra has a name
	liar    *impostor
	volume  *volume
	sidecar *process
	keys    []*key
	ledger  *ledger
	idle    rest // before there was any client
	hangUp  func()
}

// serial makes each world's resources its own: they share an emulator.
var serial atomic.Int64

// newWorld starts all but the clients. Everything ends with the test.
func newWorld(t testing.TB, f size, ownCloud, named bool) *world {
	t.Helper()
	w := &world{t: t, form: f, cloud: shared, ledger: newLedger(), hangUp: func() {}}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if ownCloud {
		w.cloud, err = startCloud()
		must(err)
		t.Cleanup(func() { _ = w.cloud.close() })
	}
	w.link, err = newLink(w.cloud.Address)
	must(err)
	t.Cleanup(func() { _ = w.link.close() })
	w.liar = newImpostor(t)
	w.volume, err = newVolume(t.TempDir(), w.cloud.Issuer)
	must(err)
	w.makeKeys()
	must(w.heal())
	must(w.startSidecar(named))
	t.Cleanup(func() { _ = w.sidecar.cmd.Process.Kill() }) // if it has not ended
	w.idle, err = w.sidecar.rest(t.Context())
	must(err)
	return w
}

func (w *world) makeKeys() {
	number := serial.Add(1)
	for class := range w.form.classes() {
		for i := range w.form.perClass {
			resource := fmt.Sprintf("https://r%d-%d-%d.example", number, class, i)
			for n, id := range identities {
				k := &key{identity: id, resource: resource, class: class, number: n}
				target := "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=" + url.QueryEscape(resource)
				if k.target = target + "&client_id=" + id.client; n == 0 {
					k.unnamed = target
				}
				w.keys = append(w.keys, k)
			}
		}
	}
}

// spoil has the emulator meet this world's requests with f.
func (w *world) spoil(f entratest.Fault) error {
	return w.eachResource(func(*key) entratest.Fault { return f })
}

// heal has it grant tokens again, of each class with its life.
func (w *world) heal() error {
	return w.eachResource(func(k *key) entratest.Fault {
		l := w.form.classes()[k.class]
		return entratest.Fault{ExpiresIn: l.life, RefreshIn: l.refresh}
	})
}

func (w *world) eachResource(fault func(*key) entratest.Fault) error {
	var errs []error
	for _, k := range w.keys {
		if k.number == 0 {
			errs = append(errs, w.cloud.setFault(k.resource, fault(k)))
		}
	}
	return errors.Join(errs...)
}

const configuration = `tenant-id: %s
identities:
  - {name: first, client-id: %s, default: true, source: projected}
  - {name: second, client-id: %s, source: projected}
  - {name: third, client-id: %s, tenant-id: %s, source: own}
sources:
  - {name: projected, kind: file, path: %q}
  - {name: own, kind: local, issuer: %q, subject: %q, key-file: %q}
`

func (w *world) startSidecar(named bool) (err error) {
	dir := w.t.TempDir()
	config, ca := filepath.Join(dir, "svidecar.yaml"), filepath.Join(dir, "ca.pem")
	text := fmt.Sprintf(configuration, identities[0].tenant, identities[0].client, identities[1].client, identities[2].client, identities[2].tenant,
		w.volume.path, w.cloud.Issuer, emulation.Subject, keyFile)
	if err := errors.Join(os.WriteFile(config, []byte(text), 0o600), os.WriteFile(ca, []byte(w.cloud.CA), 0o600)); err != nil {
		return err
	}
	authority, env := w.link.address, []string(nil)
	if named {
		_, port, err := net.SplitHostPort(authority)
		if err != nil {
			return err
		}
		authority = net.JoinHostPort(authorityName, port)
		w.tunnel = newTunnel(w.t, w.link)
		env = []string{"HTTPS_PROXY=" + w.tunnel.URL}
	}
	args := []string{"serve", "--config", config, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0",
		"--authority-host", "https://" + authority + "/", "--authority-ca-file", ca, "--shutdown-delay", "0s"}
	if w.form.timeout > 0 {
		args = append(args, "--exchange-timeout", w.form.timeout.String())
	}
	w.sidecar, err = startSidecar(env, args)
	return err
}

// startClients lets all clients ask until hangUp is called.
func (w *world) startClients() {
	ctx, cancel := context.WithCancel(w.t.Context())
	var running sync.WaitGroup
	for i := range w.form.clients {
		c := &client{address: w.sidecar.tokens}
		running.Go(func() { c.run(ctx, w.ledger, w.keys, i, w.form.every) })
	}
	w.hangUp = sync.OnceFunc(func() { cancel(); running.Wait() })
	w.t.Cleanup(w.hangUp)
}

// until waits for a condition.
func (w *world) until(limit time.Duration, ok func() bool) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(limit)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			return ok()
		}
	}
	return true
}

// pass lets time pass.
func (w *world) pass(d time.Duration) {
	select {
	case <-time.After(d):
	case <-w.t.Context().Done():
	}
}

// missing are the keys of which want is not true.
func (w *world) missing(want func(*key, state) bool) (keys []string) {
	for _, k := range w.keys {
		if !want(k, k.state()) {
			keys = append(keys, k.resource+" of "+k.client)
		}
	}
	return keys
}

// tunnel is the proxy through which Entra is found by name.
type tunnel struct {
	*httptest.Server
	link *link
	lost atomic.Bool // the name does not resolve
}

func newTunnel(t testing.TB, l *link) *tunnel {
	tun := &tunnel{link: l}
	tun.Server = httptest.NewServer(tun)
	t.Cleanup(func() { l.cut(); tun.Close() })
	return tun
}

// ServeHTTP tunnels to the link, whatever name was asked for.
func (tun *tunnel) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect || tun.lost.Load() {
		http.Error(w, "no such host: "+r.Host, http.StatusBadGateway)
		return
	}
	far, err := net.Dial("tcp", tun.link.address)
	if err != nil {
		http.Error(w, "no way", http.StatusBadGateway)
		return
	}
	defer far.Close()
	near, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer near.Close()
	_, _ = io.WriteString(near, "HTTP/1.1 200 OK\r\n\r\n")
	go func() {
		_, _ = io.Copy(far, buffered)
		_ = far.Close()
	}()
	_, _ = io.Copy(near, far)
}

// impostor answers for Entra with a certificate that nobody here trusts.
type impostor struct {
	*httptest.Server
	heard atomic.Int64 // requests, of which there must be none
}

func newImpostor(t testing.TB) *impostor {
	t.Helper()
	ca, err := entratest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Certificate("127.0.0.1", authorityName)
	if err != nil {
		t.Fatal(err)
	}
	liar := &impostor{}
	liar.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { liar.heard.Add(1) }))
	liar.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	liar.Config.ErrorLog = log.New(io.Discard, "", 0)
	liar.StartTLS()
	t.Cleanup(liar.Close)
	return liar
}

// volume is a projected volume with a token, as kubelet keeps one.
type volume struct {
	dir, path string
	source    *mint.Local
	version   int
}

func newVolume(dir, issuer string) (*volume, error) {
	key, err := mint.LoadKey(keyFile)
	if err != nil {
		return nil, err
	}
	v := &volume{dir: dir, path: filepath.Join(dir, "token")}
	v.source, err = mint.NewLocal(mint.LocalConfig{
		Signer: crypto.Signer(key), Issuer: issuer, Subject: emulation.Subject, Audience: emulation.Audience, Lifetime: time.Hour,
	})
	if err != nil {
		return nil, err
	}
	if err := v.write(); err != nil {
		return nil, err
	}
	return v, nil
}

// write puts a token into the volume: by kubelet's two links, of which it swaps the
// inner one, or in place where links need a privilege.
func (v *volume) write() error {
	assertion, err := v.source.Fresh(context.Background())
	if err != nil {
		return err
	}
	data := filepath.Join(v.dir, "..data")
	old, _ := os.Readlink(data)
	v.version++
	name := fmt.Sprintf("..v%d", v.version)
	err = errors.Join(
		os.Mkdir(filepath.Join(v.dir, name), 0o700),
		os.WriteFile(filepath.Join(v.dir, name, "token"), []byte(assertion.Value.Reveal()), 0o600))
	if err != nil {
		return err
	}
	if err := os.Symlink(name, data+"_tmp"); err != nil {
		return os.WriteFile(v.path, []byte(assertion.Value.Reveal()), 0o600)
	}
	if err := os.Rename(data+"_tmp", data); err != nil {
		return err
	}
	if _, err := os.Lstat(v.path); err != nil {
		if err := os.Symlink(filepath.Join("..data", "token"), v.path); err != nil {
			return err
		}
	}
	if old != "" {
		return os.RemoveAll(filepath.Join(v.dir, old))
	}
	return nil
}

func (v *volume) truncate() error { return os.Truncate(v.path, 0) }

func (v *volume) remove() error { return os.Remove(v.path) }
