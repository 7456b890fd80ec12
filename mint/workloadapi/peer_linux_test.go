package workloadapi_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	spiffe "github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"

	"github.com/svidecar/svidecar/mint/workloadapi"
)

func TestNewRefusesUsers(t *testing.T) {
	for uid, says := range map[int]string{-1: "not between", 1<<32 - 1: "not between", 65534: "does not map"} {
		cfg := newIssuer(t).config()
		cfg.Identities = []workloadapi.Identity{{ID: cart, UID: new(uid)}}
		if _, err := workloadapi.New(cfg); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("UID %d: error %v, want one with %q", uid, err, says)
		}
	}
	cfg := newIssuer(t).config()
	cfg.Identities = []workloadapi.Identity{{ID: cart, Hint: "a", UID: new(1)}, {ID: cart, Hint: "a", UID: new(2)}, {ID: stock, Hint: "b"}}
	if _, err := workloadapi.New(cfg); err != nil {
		t.Errorf("one identity for two users: %v", err)
	}
	cfg.Identities = append(cfg.Identities, workloadapi.Identity{ID: other, Hint: "a"})
	if _, err := workloadapi.New(cfg); err == nil {
		t.Error("one user would get two identities of one hint")
	}
}

func TestUsersAreToldApart(t *testing.T) {
	mine := os.Getuid()
	cfg := newIssuer(t).config()
	cfg.Identities = []workloadapi.Identity{{ID: stock, UID: new(mine + 1)}, {ID: cart, UID: new(mine)}, {ID: other, UID: new(mine + 2)}}
	address, _ := start(t, newServer(t, cfg))
	c := client(t, address)
	svids, err := c.FetchJWTSVIDs(t.Context(), jwtsvid.Params{Audience: audience})
	if err != nil || len(svids) != 1 || svids[0].ID != cart {
		t.Errorf("got %v, %v, want %s alone", svids, err, cart)
	}
	_, err = c.FetchJWTSVID(t.Context(), jwtsvid.Params{Audience: audience, Subject: stock})
	checkStatus(t, err, codes.PermissionDenied, "no identity issued")
}

func TestUserWithoutIdentity(t *testing.T) {
	cfg := newIssuer(t).config()
	cfg.Identities = []workloadapi.Identity{{ID: cart, UID: new(os.Getuid() + 1)}}
	address, _ := start(t, newServer(t, cfg))
	for call, err := range everyCall(withHeader(t.Context()), raw(t, address)) {
		if strings.Contains(call, "JWT") {
			checkStatus(t, err, codes.PermissionDenied, fmt.Sprintf("user %d has none", os.Getuid()))
		}
	}
}

// childMark makes this test binary a client: its value is the user to become, and
// the socket.
const childMark = "WORKLOADAPI_TEST_IS_THE_CLIENT"

// TestClientProcess is the client; by itself it does nothing.
func TestClientProcess(t *testing.T) {
	uid, address := 0, ""
	if n, _ := fmt.Sscanf(os.Getenv(childMark), "%d %s", &uid, &address); n != 2 {
		return
	}
	if uid != os.Getuid() {
		if err := syscall.Setuid(uid); err != nil {
			t.Fatal(err)
		}
	}
	c, err := spiffe.New(t.Context(), spiffe.WithAddr(address))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	svids, err := c.FetchJWTSVIDs(t.Context(), jwtsvid.Params{Audience: audience})
	for _, svid := range svids {
		fmt.Println("GOT", svid.ID)
	}
	fmt.Println("ERROR", err)
}

func runClient(t *testing.T, uid int, address string, env ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestClientProcess$", "-test.v")
	cmd.Env = append(append(os.Environ(), fmt.Sprintf("%s=%d %s", childMark, uid, address)), env...)
	cmd.Env = append(cmd.Env, "GORACE=atexit_sleep_ms=0") // it sleeps for a second otherwise
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the client: %v\n%s", err, out)
	}
	return string(out)
}

// TestOtherUsers connects as three other users. It needs root.
func TestOtherUsers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to become other users; TestUsersAreToldApart does what it can without")
	}
	cfg := newIssuer(t).config()
	cfg.Identities = []workloadapi.Identity{{ID: cart, UID: new(12301)}, {ID: stock, UID: new(12302)}, {ID: other, UID: new(0)}}
	address, _ := start(t, newServer(t, cfg))
	for uid, want := range map[int]string{
		12301: "GOT " + cart.String() + "\nERROR <nil>",
		12302: "GOT " + stock.String() + "\nERROR <nil>",
		12303: "user 12303 has none",
		0:     "GOT " + other.String() + "\nERROR <nil>",
	} {
		out := runClient(t, uid, address)
		if !strings.Contains(out, want) || strings.Count(out, "GOT") > 1 {
			t.Errorf("user %d:\n%s\nwant %q", uid, out, want)
		}
	}
}

// TestModeKeepsOthersOut is the system's work; the mode is ours.
func TestModeKeepsOthersOut(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to become another user; TestListenMode looks at the mode")
	}
	address := socketAddress(t)
	l, err := workloadapi.Listen(address, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if out := runClient(t, 12301, address); !strings.Contains(out, "permission denied") {
		t.Errorf("another user at a socket of mode 0600:\n%s", out)
	}
}

// TestProxyOfTheWebIsNotAsked: variables for HTTP proxies lead no token astray.
func TestProxyOfTheWebIsNotAsked(t *testing.T) {
	address, _ := start(t, newServer(t, newIssuer(t).config()))
	proxy := "http://127.0.0.1:1"
	out := runClient(t, os.Getuid(), address, "HTTP_PROXY="+proxy, "HTTPS_PROXY="+proxy, "ALL_PROXY="+proxy, "GRPC_PROXY="+proxy, "NO_PROXY=")
	if !strings.Contains(out, "ERROR <nil>") {
		t.Errorf("with a proxy in the environment:\n%s", out)
	}
}
