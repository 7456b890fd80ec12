//go:build linux

package spire_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// The stand-ins are this test binary by another name. They know what the harness
// uses of SPIRE and nothing else: an unknown setting, command or flag ends them.
var standIns = map[string]func(args []string) error{
	"spire-server":            standInServer,
	"spire-agent":             standInAgent,
	"oidc-discovery-provider": standInProvider,
}

// runStandIn is main for a stand-in; it returns false in the test binary itself.
func runStandIn() (ran bool) {
	run, ok := standIns[filepath.Base(os.Args[0])]
	if !ok {
		return false
	}
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "stand-in:", err)
		os.Exit(1)
	}
	return true
}

// standInDir is a SPIRE_BIN_DIR of stand-ins.
func standInDir(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name := range standIns {
		if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// terminated is closed at SIGTERM.
func terminated() <-chan os.Signal {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	return c
}

// known are the settings that SPIRE's documentation has, of those that the harness
// writes.
var known = []string{
	"bind_address", "bind_port", "socket_path", "trust_domain", "data_dir", "log_level", "default_jwt_svid_ttl",
	"jwt_key_type", "jwt_issuer", "database_type", "connection_string", "directory", "server_address", "server_port",
	"trust_bundle_path", "join_token", "domains", "jwks_uri", "listen_socket_path", "set_key_use", "address", "poll_interval",
}

var (
	assignment = regexp.MustCompile(`^([a-z_]+) = (?:"([^"\\]*)"|(true|\["[^"\\]*"\]))$`)
	opening    = regexp.MustCompile(`^[A-Za-z_]+( "[a-z0-9_]+")? \{$`)
)

// readConf reads the subset of HCL that the harness writes.
func readConf(path string) (map[string]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	conf, depth := map[string]string{}, 0
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		m := assignment.FindStringSubmatch(line)
		switch {
		case line == "}":
			depth--
		case line == "plugin_data {}":
		case opening.MatchString(line):
			depth++
		case m == nil || !slices.Contains(known, m[1]):
			return nil, fmt.Errorf("%s: cannot read %q", path, line)
		default:
			conf[m[1]] = m[2] + m[3]
		}
	}
	if depth != 0 {
		return nil, fmt.Errorf("%s: %d blocks are open at the end", path, depth)
	}
	return conf, nil
}

// options reads `run -config FILE` and the like.
func options(args []string, names ...string) (words []string, set map[string]string, err error) {
	words = leading(args)
	flags := flag.NewFlagSet("stand-in", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	for _, name := range names {
		flags.String(name, "", "")
	}
	if err := flags.Parse(args[len(words):]); err != nil {
		return nil, nil, err
	}
	if flags.NArg() > 0 {
		return nil, nil, fmt.Errorf("cannot read %q", flags.Args())
	}
	set = map[string]string{}
	flags.Visit(func(f *flag.Flag) { set[f.Name] = f.Value.String() })
	return words, set, nil
}

// leading are the arguments before the flags.
func leading(args []string) []string {
	if n := slices.IndexFunc(args, func(a string) bool { return strings.HasPrefix(a, "-") }); n >= 0 {
		return args[:n]
	}
	return args
}

// overSocket is a client of one unix socket.
func overSocket(path string) *http.Client { return &http.Client{Transport: toSocket(path)} }

func toSocket(path string) *http.Transport {
	return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
}

// ask is GET, and gives the body of a 200.
func ask(client *http.Client, base, path string, query map[string]string) ([]byte, error) {
	values := url.Values{}
	for name, value := range query {
		values.Set(name, value)
	}
	resp, err := client.Get(base + path + "?" + values.Encode())
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(strings.TrimSpace(string(body)))
	}
	return body, nil
}

// commandFlags are those of spire-server's commands that the harness uses.
var commandFlags = map[string][]string{
	"healthcheck":                 {"socketPath"},
	"bundle show":                 {"socketPath", "format"},
	"token generate":              {"socketPath", "output", "ttl"},
	"entry create":                {"socketPath", "output", "parentID", "spiffeID", "selector"},
	"entry delete":                {"socketPath", "output", "entryID"},
	"localauthority jwt show":     {"socketPath", "output"},
	"localauthority jwt prepare":  {"socketPath", "output"},
	"localauthority jwt activate": {"socketPath", "output", "authorityID"},
	"localauthority jwt taint":    {"socketPath", "output", "authorityID"},
	"localauthority jwt revoke":   {"socketPath", "output", "authorityID"},
}

// standInCommand asks the running server over its socket.
func standInCommand(args []string) error {
	name := strings.Join(leading(args), " ")
	names, ok := commandFlags[name]
	if !ok {
		return fmt.Errorf("there is no command %q", name)
	}
	_, set, err := options(args, names...)
	if err != nil {
		return err
	}
	body, err := ask(overSocket(set["socketPath"]), "http://server", "/"+strings.ReplaceAll(name, " ", "/"), set)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(body)
	return err
}
