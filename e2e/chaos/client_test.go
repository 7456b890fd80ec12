package chaos_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

const (
	// margin is the life that the sidecar keeps in hand: a token with less
	// counts as expired.
	margin = 2 * time.Second
	// patience is how long a client waits for an answer before it calls the
	// request lost.
	patience = 20 * time.Second
	// prompt is how long a request may take while a valid token exists. The
	// sidecar waits for 1 s at most; the rest is for a busy machine.
	prompt = 4 * time.Second
	// fresh is the life above which it does not wait at all, since SDKs take
	// what has less for expired. 10 s are for rounding and the way.
	fresh = 5*time.Minute + 10*time.Second
)

// key is one token that clients ask for.
type key struct {
	identity
	resource string
	class    int    // index in size.classes
	number   int    // of the identity
	target   string // of the request that names the client id
	unnamed  string // of the one that names none; empty unless it is the default identity

	mu       sync.Mutex
	until    time.Time // end of the newest token that anyone has got
	renewed  time.Time // when that was first seen
	token    string
	lastOK   time.Time
	lastFail time.Time
}

// state is what is known of a key.
type state struct{ until, renewed, lastOK, lastFail time.Time }

func (k *key) state() state {
	k.mu.Lock()
	defer k.mu.Unlock()
	return state{k.until, k.renewed, k.lastOK, k.lastFail}
}

// ledger is what clients note.
type ledger struct {
	mu       sync.Mutex
	statuses map[int]int   // 0: no answer
	slowest  time.Duration // of the requests for which a valid token existed
	fresh    time.Duration // of those whose token was as good as new
	lost     complaints    // valid token, but not served
	slow     complaints    // valid token, served late
	wrong    complaints    // not the token that was asked for
	failed   map[int]int   // not served, by the identity's number
	sample   string        // the last failure
	verified map[string]claims
}

// complaints counts, and keeps the first few.
type complaints struct {
	count int
	first []string
}

func (c *complaints) add(format string, args ...any) {
	if c.count++; len(c.first) < 5 {
		c.first = append(c.first, fmt.Sprintf(format, args...))
	}
}

func newLedger() *ledger {
	return &ledger{statuses: map[int]int{}, failed: map[int]int{}, verified: map[string]claims{}}
}

// turn returns what was noted since the last turn.
func (l *ledger) turn() *ledger {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := &ledger{statuses: l.statuses, slowest: l.slowest, fresh: l.fresh, lost: l.lost, slow: l.slow, wrong: l.wrong, failed: l.failed, sample: l.sample}
	l.statuses, l.failed, l.slowest, l.fresh = map[int]int{}, map[int]int{}, 0, 0
	l.lost, l.slow, l.wrong, l.sample = complaints{}, complaints{}, complaints{}, ""
	return old
}

func (l *ledger) requests() (all, failed int) {
	for status, n := range l.statuses {
		if all += n; status != http.StatusOK {
			failed += n
		}
	}
	return all, failed
}

// claims are those of a verified token.
type claims struct {
	appid, tid, aud string
	expires         time.Time
}

// claimsOf verifies a token once, however many clients get it.
func (l *ledger) claimsOf(token string) (claims, error) {
	l.mu.Lock()
	c, ok := l.verified[token]
	l.mu.Unlock()
	if ok {
		return c, nil
	}
	all, err := judge.VerifyAccessToken(token)
	if err != nil {
		return claims{}, err
	}
	c.appid, _ = all["appid"].(string)
	c.tid, _ = all["tid"].(string)
	c.aud, _ = all["aud"].(string)
	exp, _ := all["exp"].(float64)
	c.expires = time.Unix(int64(exp), 0)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.verified) > 2000 {
		for old, c := range l.verified {
			if time.Since(c.expires) > patience {
				delete(l.verified, old)
			}
		}
	}
	l.verified[token] = c
	return c, nil
}

// answer is what came back.
type answer struct {
	status     int // 0: err
	body       []byte
	err        error
	sent, came time.Time
}

// judge notes an answer. Before is what was known of the key when it was asked for.
func (l *ledger) judge(k *key, before state, a answer) {
	wrong := ""
	if a.status == http.StatusOK {
		wrong = l.accept(k, a)
	} else {
		k.mu.Lock()
		k.lastFail = a.came
		k.mu.Unlock()
	}
	valid := a.came.Add(margin).Before(before.until)
	took := a.came.Sub(a.sent)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.statuses[a.status]++
	if wrong != "" {
		l.wrong.add("%s of %s: %s", k.resource, k.client, wrong)
	}
	if a.status != http.StatusOK {
		l.failed[k.number]++
		l.sample = fmt.Sprintf("HTTP %d %v %.300s", a.status, a.err, a.body)
	}
	if !valid {
		return
	}
	l.slowest = max(l.slowest, took)
	if a.came.Add(fresh).Before(before.until) {
		l.fresh = max(l.fresh, took)
	}
	if a.status != http.StatusOK {
		l.lost.add("%s of %s, after %v, with %v of life left: HTTP %d %v %.300s", k.resource, k.client, took, before.until.Sub(a.came), a.status, a.err, a.body)
	} else if took > prompt {
		l.slow.add("%s of %s took %v", k.resource, k.client, took)
	}
}

// accept says what is wrong with a 200, if anything is, and notes the token.
func (l *ledger) accept(k *key, a answer) (wrong string) {
	var reply struct {
		Token    string `json:"access_token"`
		ClientID string `json:"client_id"`
		Resource string `json:"resource"`
		Expires  string `json:"expires_on"`
	}
	if err := json.Unmarshal(a.body, &reply); err != nil {
		return err.Error()
	}
	seconds, err := strconv.ParseInt(reply.Expires, 10, 64)
	if err != nil {
		return err.Error()
	}
	expires := time.Unix(seconds, 0)
	is, err := l.claimsOf(reply.Token)
	switch {
	case err != nil:
		return err.Error()
	case is.appid != k.client || is.tid != k.tenant || is.aud != k.resource:
		return fmt.Sprintf("the token is for %s in %s, %s", is.appid, is.tid, is.aud)
	case reply.ClientID != k.client || reply.Resource != k.resource:
		return fmt.Sprintf("the reply says client %q, resource %q", reply.ClientID, reply.Resource)
	case !is.expires.After(a.sent), !is.expires.After(a.came) && a.came.Sub(a.sent) < prompt/2:
		return fmt.Sprintf("the token ended at %v, before it came at %v", is.expires, a.came)
	case expires.After(is.expires):
		return fmt.Sprintf("the reply says %v, the token ends at %v", expires, is.expires)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lastOK = a.came
	if reply.Token != k.token && expires.After(k.until) {
		k.token, k.until, k.renewed = reply.Token, expires, a.came
	}
	return ""
}

// client asks for one key after the other on one connection that is kept, and
// never repeats a request.
type client struct {
	address string
	conn    net.Conn
	reader  *bufio.Reader
}

// run asks once in every period, until ctx ends. After an answer that took longer
// it makes up for what it missed, at most at four times the pace, so that a fault
// which keeps clients waiting does not lighten the load.
func (c *client) run(ctx context.Context, l *ledger, keys []*key, first int, every time.Duration) {
	const stride = 7 // coprime to the number of keys
	defer c.hangUp()
	due := time.Now().Add(rand.N(every))
	wait := time.NewTimer(time.Until(due))
	defer wait.Stop()
	for i := first; ; i += stride {
		select {
		case <-wait.C:
		case <-ctx.Done():
			return
		}
		k := keys[i%len(keys)]
		target := k.target
		if k.unnamed != "" && i%2 == 0 {
			target = k.unnamed
		}
		before := k.state()
		l.judge(k, before, c.ask(target))
		due = due.Add(every)
		wait.Reset(max(every/4, time.Until(due)))
	}
}

func (c *client) ask(target string) answer {
	a := answer{sent: time.Now()}
	a.status, a.body, a.err = c.exchange(target)
	a.came = time.Now()
	if a.err != nil {
		a.status = 0
		c.hangUp()
	}
	return a
}

func (c *client) exchange(target string) (int, []byte, error) {
	if c.conn == nil {
		conn, err := net.DialTimeout("tcp", c.address, patience)
		if err != nil {
			return 0, nil, err
		}
		c.conn, c.reader = conn, bufio.NewReader(conn)
	}
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, nil, err
	}
	if _, err := io.WriteString(c.conn, "GET "+target+" HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: chaos\r\nMetadata: true\r\n\r\n"); err != nil {
		return 0, nil, err
	}
	resp, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if resp.Close {
		c.hangUp()
	}
	return resp.StatusCode, body, err
}

func (c *client) hangUp() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}
