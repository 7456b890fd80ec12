//go:build linux

package spire_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const commandLimit = 20 * time.Second

// command runs one of SPIRE's commands to its end and returns what it printed. An
// error has what it said on standard error, never what it printed: that may be a
// join token.
func command(ctx context.Context, program string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "GORACE=atexit_sleep_ms=0"}
	cmd.WaitDelay = time.Second
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", filepath.Base(program), strings.Join(args, " "), err, strings.TrimSpace(said.String()))
	}
	return out, nil
}

// registry is SPIRE's server as its own commands drive it.
type registry struct{ program, socket string }

// ask runs a command and decodes its JSON.
func (r registry) ask(ctx context.Context, into any, words string, flags ...string) error {
	args := append(strings.Fields(words), "-socketPath", r.socket, "-output", "json")
	out, err := command(ctx, r.program, append(args, flags...)...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, into); err != nil {
		return fmt.Errorf("spire-server %s printed no such JSON as expected: %w", words, err)
	}
	return nil
}

func (r registry) healthy(ctx context.Context) error {
	_, err := command(ctx, r.program, "healthcheck", "-socketPath", r.socket)
	return err
}

// bundle is the trust domain's, as the agent wants it: PEM.
func (r registry) bundle(ctx context.Context) ([]byte, error) {
	return command(ctx, r.program, "bundle", "show", "-socketPath", r.socket, "-format", "pem")
}

func (r registry) joinToken(ctx context.Context) (string, error) {
	var reply struct {
		Value string `json:"value"`
	}
	err := r.ask(ctx, &reply, "token generate", "-ttl", "600")
	if err == nil && reply.Value == "" {
		err = errors.New("spire-server token generate printed no value")
	}
	return reply.Value, err
}

// register makes an entry for processes of a user on the agent's node, and returns
// its id.
func (r registry) register(ctx context.Context, joinToken, id string, uid int) (string, error) {
	var reply struct {
		Results []struct {
			Status struct {
				Code    int    `json:"code"`
				Message string `json:"message"`
			} `json:"status"`
			Entry struct {
				ID string `json:"id"`
			} `json:"entry"`
		} `json:"results"`
	}
	parent := "spiffe://" + trustDomain + "/spire/agent/join_token/" + joinToken
	err := r.ask(ctx, &reply, "entry create", "-parentID", parent, "-spiffeID", id, "-selector", fmt.Sprintf("unix:uid:%d", uid))
	switch {
	case err != nil:
		return "", err
	case len(reply.Results) != 1:
		return "", fmt.Errorf("spire-server entry create: %d results, want 1", len(reply.Results))
	case reply.Results[0].Status.Code != 0 || reply.Results[0].Entry.ID == "":
		return "", fmt.Errorf("spire-server entry create: %s (code %d)", reply.Results[0].Status.Message, reply.Results[0].Status.Code)
	}
	return reply.Results[0].Entry.ID, nil
}

func (r registry) unregister(ctx context.Context, entry string) error {
	return r.ask(ctx, new(map[string]any), "entry delete", "-entryID", entry)
}

// authorities are the ids of the keys that sign JWT-SVIDs: their kids.
type authorities struct{ active, prepared, old string }

type authority struct {
	ID string `json:"authority_id"`
}

func (r registry) authorities(ctx context.Context) (authorities, error) {
	var reply struct{ Active, Prepared, Old authority }
	err := r.ask(ctx, &reply, "localauthority jwt show")
	return authorities{reply.Active.ID, reply.Prepared.ID, reply.Old.ID}, err
}

// prepare makes the next key, and returns its id.
func (r registry) prepare(ctx context.Context) (string, error) {
	var reply struct {
		Prepared authority `json:"prepared_authority"`
	}
	err := r.ask(ctx, &reply, "localauthority jwt prepare")
	if err == nil && reply.Prepared.ID == "" {
		err = errors.New("spire-server localauthority jwt prepare printed no id")
	}
	return reply.Prepared.ID, err
}

// change is activate, taint or revoke.
func (r registry) change(ctx context.Context, verb, id string) error {
	return r.ask(ctx, new(map[string]any), "localauthority jwt "+verb, "-authorityID", id)
}
