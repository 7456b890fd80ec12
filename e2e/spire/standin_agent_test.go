//go:build linux

package spire_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// syncEvery is how often the stand-ins ask the server; SPIRE's agent takes 5 s.
const syncEvery = 100 * time.Millisecond

// node stands in for spire-agent: it attests once, syncs, and keeps JWT-SVIDs to
// half of their life, or to their end if the server is away. It trusts that
// whoever asks is of its own user, and hangs while the server hangs, as SPIRE's
// agent does when its copy is past half-life.
type node struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	server string // URL
	domain string

	mu    sync.Mutex
	known state
	held  map[string]svid
}

func standInAgent(args []string) error {
	words, set, err := options(args, "config", "socketPath")
	switch {
	case err != nil:
		return err
	case slices.Equal(words, []string{"healthcheck"}):
		conn, err := net.Dial("unix", set["socketPath"])
		if err != nil {
			return errors.New("Agent is unavailable")
		}
		return conn.Close()
	case !slices.Equal(words, []string{"run"}):
		return fmt.Errorf("there is no command %q", words)
	}
	conf, err := readConf(set["config"])
	if err != nil {
		return err
	}
	n := &node{server: "http://" + net.JoinHostPort(conf["server_address"], conf["server_port"]), domain: conf["trust_domain"], held: map[string]svid{}}
	if err := n.attest(conf); err != nil {
		return err
	}
	return n.serve(conf["socket_path"])
}

// attest uses the join token up, and remembers that in data_dir.
func (n *node) attest(conf map[string]string) error {
	if _, err := os.Stat(conf["trust_bundle_path"]); err != nil {
		return err
	}
	done := filepath.Join(conf["data_dir"], "attested")
	if _, err := os.Stat(done); err == nil {
		return nil
	}
	if _, err := ask(http.DefaultClient, n.server, "/agent/attest", map[string]string{"token": conf["join_token"]}); err != nil {
		return err
	}
	return os.WriteFile(done, nil, 0o600)
}

func (n *node) serve(socket string) error {
	if err := n.sync(); err != nil {
		return err
	}
	_ = os.Remove(socket) // of an agent that was killed
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	workload.RegisterSpiffeWorkloadAPIServer(server, n)
	go func() { _ = server.Serve(l) }()
	again := time.NewTicker(syncEvery)
	defer again.Stop()
	for stop := terminated(); ; {
		select {
		case <-again.C:
			go func() { _ = n.sync() }() // hangs with the server
		case <-stop:
			server.Stop()
			return nil
		}
	}
}

func (n *node) sync() error {
	body, err := ask(&http.Client{Timeout: time.Second}, n.server, "/agent/state", nil)
	if err != nil {
		return err
	}
	var now state
	if err := json.Unmarshal(body, &now); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.known = now
	for id, s := range n.held {
		if slices.Contains(now.Tainted, s.KeyID) {
			delete(n.held, id)
		}
	}
	return nil
}

// FetchJWTSVID implements the SPIFFE Workload API.
func (n *node) FetchJWTSVID(ctx context.Context, req *workload.JWTSVIDRequest) (*workload.JWTSVIDResponse, error) {
	if err := secured(ctx); err != nil {
		return nil, err
	}
	if len(req.GetAudience()) != 1 {
		return nil, status.Error(codes.InvalidArgument, "one audience is supported")
	}
	n.mu.Lock()
	entries := n.known.Entries
	n.mu.Unlock()
	var reply workload.JWTSVIDResponse
	for _, e := range entries {
		if e.Selector != fmt.Sprintf("unix:uid:%d", os.Getuid()) || req.GetSpiffeId() != "" && req.GetSpiffeId() != e.ID {
			continue
		}
		s, err := n.svid(ctx, e.ID, req.GetAudience()[0])
		if err != nil {
			return nil, status.Errorf(codes.Unavailable, "could not fetch JWT-SVID: %v", err)
		}
		reply.Svids = append(reply.Svids, &workload.JWTSVID{SpiffeId: e.ID, Svid: s.Token})
	}
	if len(reply.Svids) == 0 {
		return nil, status.Error(codes.PermissionDenied, "no identity issued")
	}
	return &reply, nil
}

// svid gives the one that is held, or a new one.
func (n *node) svid(ctx context.Context, id, audience string) (svid, error) {
	n.mu.Lock()
	held, ok := n.held[id+" "+audience]
	n.mu.Unlock()
	if ok && time.Now().Before(held.Renew) {
		return held, nil
	}
	type result struct {
		body []byte
		err  error
	}
	asked := make(chan result, 1)
	go func() {
		body, err := ask(http.DefaultClient, n.server, "/agent/svid", map[string]string{"id": id, "aud": audience})
		asked <- result{body, err}
	}()
	select {
	case <-ctx.Done():
		return svid{}, ctx.Err()
	case r := <-asked:
		if r.err != nil && ok && time.Now().Before(held.Expires) {
			return held, nil
		}
		var fresh svid
		if err := errors.Join(r.err, json.Unmarshal(r.body, &fresh)); err != nil {
			return svid{}, err
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		n.held[id+" "+audience] = fresh
		return fresh, nil
	}
}

// FetchJWTBundles implements the SPIFFE Workload API.
func (n *node) FetchJWTBundles(_ *workload.JWTBundlesRequest, stream grpc.ServerStreamingServer[workload.JWTBundlesResponse]) error {
	if err := secured(stream.Context()); err != nil {
		return err
	}
	n.mu.Lock()
	keys := n.known.Keys
	n.mu.Unlock()
	doc, err := json.Marshal(withUse(keys, "jwt-svid"))
	if err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	if err := stream.Send(&workload.JWTBundlesResponse{Bundles: map[string][]byte{"spiffe://" + n.domain: doc}}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

func secured(ctx context.Context) error {
	if header, _ := metadata.FromIncomingContext(ctx); !slices.Equal(header.Get("workload.spiffe.io"), []string{"true"}) {
		return status.Error(codes.InvalidArgument, "security header missing from request")
	}
	return nil
}

func withUse(set jose.JSONWebKeySet, use string) jose.JSONWebKeySet {
	var out jose.JSONWebKeySet
	for _, key := range set.Keys {
		key.Use = use
		out.Keys = append(out.Keys, key)
	}
	return out
}
