package inject_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svidecar/svidecar/deploy/inject"
)

// TestAnnotationsAreDocumented holds the table of docs/kubernetes.md against the
// one that is obeyed, and wants every annotation that the page names to exist.
func TestAnnotationsAreDocumented(t *testing.T) {
	const path, begin, end = "../../docs/kubernetes.md", "<!-- annotations: written by go test ./deploy/inject -update -->\n", "<!-- end -->\n"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), begin)
	table, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no place for the table", path)
	}
	var want strings.Builder
	want.WriteString("| annotation | allowed | meaning |\n|---|---|---|\n")
	known := map[string]bool{"azure.workload.identity/use": true, "azure.workload.identity/client-id": true, "azure.workload.identity/tenant-id": true}
	for _, a := range inject.Annotations() {
		known[a.Name] = true
		fmt.Fprintf(&want, "| `%s` | %s | %s |\n", a.Name, a.Allowed, a.Meaning)
	}
	if *update {
		if err := os.WriteFile(path, []byte(before+begin+want.String()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		table = want.String()
	}
	if diff := cmp.Diff(want.String(), table); diff != "" {
		t.Errorf("%s (-code +page; -update rewrites it):\n%s", path, diff)
	}
	for _, name := range regexp.MustCompile(`\b(svidecar\.io|azure\.workload\.identity)/[a-z-]+[a-z]`).FindAllString(string(text), -1) {
		if !known[name] {
			t.Errorf("%s names %s, which does not exist", path, name)
		}
	}
}

// TestDocumentedIdentities injects with the example of the page.
func TestDocumentedIdentities(t *testing.T) {
	text, err := os.ReadFile("../../docs/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, found := strings.Cut(string(text), "svidecar.io/identities: |\n")
	list, _, ended := strings.Cut(list, "```")
	if !found || !ended {
		t.Fatal("the page has no example of svidecar.io/identities")
	}
	pod, _ := injected(t, config(), inject.Input{Pod: podWith(t, on("svidecar.io/identities", list), nil)})
	if cfg := checkSettings(t, named(t, pod, "svidecar")); len(cfg.Identities) != 2 || !cfg.Identities[0].Default {
		t.Errorf("the example gives %+v", cfg.Identities)
	}
}
