package chaos_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/svidecar/svidecar/exchange/entratest"
	"github.com/svidecar/svidecar/internal/emulation"
)

// emulatorRole makes the test binary the emulated Entra: a process of its own, so
// that it can be stopped like one. It names the files of its two keys.
const emulatorRole = "CHAOS_EMULATOR"

// authorityName is a name that only a proxy resolves.
const authorityName = "login.chaos.example"

// cloud is a running emulator, as its own first line describes it.
type cloud struct {
	Address, Admin, Issuer, CA string

	cmd   *exec.Cmd
	stdin io.Closer // the emulator ends when it is closed
}

// runEmulator is the emulator's main. It ends with its standard input, which is to
// say with the process that started it.
func runEmulator() int {
	err := emulate()
	if err != nil {
		fmt.Fprintln(os.Stderr, "emulator:", err)
		return 1
	}
	return 0
}

func emulate() error {
	issuerFile, tokenFile, _ := strings.Cut(os.Getenv(emulatorRole), "\n")
	text, err := os.ReadFile(tokenFile)
	if err != nil {
		return err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return errors.New("no key")
	}
	key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		return err
	}
	var apps []entratest.App
	for _, id := range identities[1:] {
		apps = append(apps, entratest.App{ClientID: id.client, TenantID: id.tenant})
	}
	e, err := emulation.Start(emulation.Config{KeyFile: issuerFile, Entra: entratest.Config{
		Key: key, KeyCacheTTL: time.Hour, Hosts: []string{authorityName}, Apps: apps,
	}})
	if err != nil {
		return err
	}
	defer e.Close()
	for _, app := range apps {
		if err := e.Entra.AddCredential(app.ClientID, entratest.FederatedCredential{Issuer: e.Issuer, Subject: emulation.Subject, Audience: emulation.Audience}); err != nil {
			return err
		}
	}
	c := cloud{Address: strings.TrimPrefix(e.Entra.URL(), "https://"), Admin: e.Admin, Issuer: e.Issuer, CA: string(e.CA.PEM())}
	if err := json.NewEncoder(os.Stdout).Encode(c); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func startCloud() (*cloud, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &cloud{cmd: exec.Command(self)}
	c.cmd.Env = append(os.Environ(), emulatorRole+"="+keyFile+"\n"+tokenKey)
	c.cmd.Stderr = os.Stderr
	dieWithParent(c.cmd)
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	if err := json.NewDecoder(stdout).Decode(c); err != nil {
		return nil, errors.Join(fmt.Errorf("starting the emulator: %w", err), c.close())
	}
	return c, nil
}

// close ends the emulator, stopped or not.
func (c *cloud) close() error {
	_ = c.stdin.Close()
	resume(c.cmd.Process)
	stuck := time.AfterFunc(5*time.Second, func() { _ = c.cmd.Process.Kill() })
	defer stuck.Stop()
	return c.cmd.Wait()
}

// setFault makes the emulator meet requests for a resource with a fault.
func (c *cloud) setFault(resource string, f entratest.Fault) error {
	body, err := json.Marshal(map[string]any{"scope": resource + "/.default", "fault": f})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, c.Admin+"/faults", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		text, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("PUT /faults %s: %s: %s", body, resp.Status, text)
	}
	return nil
}
