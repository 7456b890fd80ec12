package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/pflag"

	"github.com/svidecar/svidecar/internal/config"
	"github.com/svidecar/svidecar/internal/secret"
)

const (
	tenant  = "11111111-1111-1111-1111-111111111111"
	tenant2 = "22222222-2222-2222-2222-222222222222"
	client  = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa"
	client2 = "bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb"
	header  = "s3cr3t-Header-nobody-may-see"
)

// webhook is what azure-workload-identity's webhook puts into a pod: enough for
// a valid configuration.
var webhook = []string{
	"AZURE_TENANT_ID=" + tenant,
	"AZURE_CLIENT_ID=" + client,
	"AZURE_FEDERATED_TOKEN_FILE=/token",
	"AZURE_AUTHORITY_HOST=https://login.microsoftonline.com/",
}

// minimal is webhook without what contradicts settings that tests try out.
var minimal = []string{"AZURE_TENANT_ID=" + tenant, "AZURE_FEDERATED_TOKEN_FILE=/token"}

// compare ignores where values came from and looks into secrets.
var compare = cmp.Options{
	cmpopts.IgnoreUnexported(config.Config{}),
	cmp.Comparer(func(a, b secret.Value) bool { return a.Reveal() == b.Reveal() }),
}

func load(t testing.TB, args, environ []string) (*config.Config, error) {
	t.Helper()
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	config.Register(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatalf("Parse(%q): %v", args, err)
	}
	return config.Load(fs, environ)
}

func mustLoad(t testing.TB, args, environ []string) *config.Config {
	t.Helper()
	c, err := load(t, args, environ)
	if err != nil {
		t.Fatalf("Load(%q, %q): %v", args, environ, err)
	}
	return c
}

// inDir makes a directory with the files the working directory of the test.
func inDir(t *testing.T, files map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
}

// loadFile loads svidecar.yaml with the given text, in the minimal environment.
func loadFile(t *testing.T, text string) (*config.Config, error) {
	t.Helper()
	inDir(t, map[string]string{"svidecar.yaml": text})
	return load(t, []string{"--config=svidecar.yaml"}, minimal)
}

func with(environ []string, more ...string) []string {
	return append(append([]string{}, environ...), more...)
}

// wantError compares whole texts: they are what a person has to go by.
func wantError(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil {
		t.Fatalf("Load gave no error, want:\n%s", want)
	}
	if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(err.Error(), "\n")); diff != "" {
		t.Errorf("Load's error (-want +got):\n%s", diff)
	}
}
