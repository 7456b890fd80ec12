package config_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// FuzzFile holds that no file makes Load panic, that each line of its errors
// says where in the file to look, and that what loads also prints and loads
// again from its flags.
func FuzzFile(f *testing.F) {
	example, err := os.ReadFile("testdata/example.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(example)
	for _, seed := range []string{
		"", "\xff", "a", "- a", "listen: 127.0.0.1:1", "listen: 0.0.0.0:1", "listn: 1", "region: a\nregion: b", "a: &a b\nc: *a", "<<: {}",
		"identities:\n- client-id: " + client + "\n  default: true\n- client-id: " + client2 + "\n  default: true\n",
		"identities: [{}]", "sources: [{name: a, kind: local}]", "sources: [{name: default, kind: file, path: p}]",
		"source: local", "key-file: k", "identity-header: " + header + "\nidentity-header-file: f", "cloud: china\nauthority-host: https://login.microsoftonline.us",
		"identities:\n- {client-id: " + client + ", source: x}", "client-id: " + client + "\nidentities: [{client-id: " + client2 + "}]",
		"identities: [a: [b: [c]]]", "? {a: b}\n: c", "\u0085", "a: \u2028b", "%TAG ! a\n---\nb: c", "[[[[", "a: 'b",
	} {
		f.Add([]byte(seed))
	}
	located := regexp.MustCompile(`svidecar\.yaml:[1-9][0-9]*\b`)
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(dir, "svidecar.yaml")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := load(t, []string{"--config=" + path}, minimal)
		if err != nil {
			for line := range strings.Lines(err.Error()) {
				if !located.MatchString(line) {
					t.Errorf("an error does not say where: %q", line)
				}
			}
			return
		}
		if strings.Contains(string(text), "identity-header:") {
			return // does not survive in flags, and a file of that name may exist
		}
		if _, err := load(t, c.Flags(), minimal); err != nil {
			t.Errorf("Load(%q) = %v", c.Flags(), err)
		}
	})
}

// FuzzIdentities holds the same of the variable.
func FuzzIdentities(f *testing.F) {
	for _, seed := range []string{
		`[{"client-id":"` + client + `","default":true}]`, "- client-id: " + client, "[]", "{}", "[[", "\xff", "a: &a b", "---\n---",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, list string) {
		c, err := load(t, nil, append([]string{"SVIDECAR_IDENTITIES=" + list}, minimal...))
		if err == nil && list != "" && len(c.Identities) == 0 {
			t.Errorf("Load(%q) gave neither identities nor an error", list)
		}
		if err == nil {
			return
		}
		for line := range strings.Lines(err.Error()) {
			if !strings.Contains(line, "env SVIDECAR_IDENTITIES") {
				t.Errorf("an error does not say where: %q", line)
			}
		}
	})
}
