package arch_test

import (
	"flag"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files under testdata")

// rules are all rules that need nothing but the files.
var rules = map[string]func(*tree) []string{
	"imports":        checkImports,
	"packages":       checkPackages,
	"sleeps":         checkSleeps,
	"test libraries": checkTestLibraries,
	"logging":        checkLogging,
	"metrics":        checkMetrics,
	"state":          checkState,
	"command length": checkCmdLines,
	"private words":  checkWords,
	"decisions":      checkDecisions,
	"dockerfile":     checkDockerfile,
	"context":        checkContext,
}

func TestTreeKeepsRules(t *testing.T) {
	tr := realTree(t)
	for _, name := range slices.Sorted(maps.Keys(rules)) {
		t.Run(name, func(t *testing.T) {
			for _, complaint := range rules[name](tr) {
				t.Error(complaint)
			}
		})
	}
}

// TestGoSeesTheSamePackages holds our walk against the go command's, so that no
// package escapes the rules.
func TestGoSeesTheSamePackages(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range realTree(t).packages() {
		seen[path.Join(module, p.dir)] = true
	}
	for _, p := range goList(t, "{{.ImportPath}}", "./...") {
		if !seen[p] {
			t.Errorf("go list names %s; the rules did not see it", p)
		}
	}
}

// TestRevealGolden makes every new place that takes a credential out of its
// wrapper show up in a diff.
func TestRevealGolden(t *testing.T) {
	golden(t, "reveal.txt", reveals(realTree(t)))
}

// mayNotLink lists, for each binary, the prefixes of modules that it must never
// grow into: the sidecar is in every pod.
var mayNotLink = map[string][]string{
	"svidecar": {
		"k8s.io/",
		"sigs.k8s.io/",
		"github.com/Azure/azure-sdk-for-go/",
		"github.com/stretchr/",
		"github.com/rogpeppe/",
		"github.com/google/go-cmp",
	},
	"svidecar-webhook": {
		"github.com/Azure/",
		"github.com/AzureAD/",
		"github.com/onsi/",
		"github.com/stretchr/",
		"github.com/rogpeppe/",
		"github.com/google/go-cmp",
	},
}

// TestLinkedModulesGolden makes every module that enters a binary show up in a
// diff. The golden files hold no versions, so that an update is no change.
func TestLinkedModulesGolden(t *testing.T) {
	mains, err := filepath.Glob(filepath.Join(root, "cmd", "*", "main.go"))
	if err != nil || len(mains) == 0 {
		t.Fatalf("no cmd/*/main.go (%v)", err)
	}
	for _, m := range mains {
		name := filepath.Base(filepath.Dir(m))
		t.Run(name, func(t *testing.T) {
			mods := goList(t, "{{with .Module}}{{.Path}}{{end}}", "-deps", "./cmd/"+name)
			for _, complaint := range forbiddenModules(mods, mayNotLink[name]) {
				t.Error(complaint)
			}
			golden(t, "modules-"+name+".txt", strings.Join(mods, "\n")+"\n")
		})
	}
}

func forbiddenModules(mods, prefixes []string) (bad []string) {
	for _, m := range mods {
		for _, p := range prefixes {
			if strings.HasPrefix(m, p) {
				bad = append(bad, "links "+m)
			}
		}
	}
	return bad
}

// goList runs the go command that runs this test, as if on linux/amd64, and
// gives the lines of its answer sorted, each once.
func goList(t *testing.T, format string, args ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-f", format}, args...)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0")
	cmd.Stderr = t.Output()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", cmd, err)
	}
	lines := strings.Fields(string(out))
	if len(lines) == 0 {
		t.Fatalf("%v: no output", cmd)
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}

// golden compares got with a file under testdata, or rewrites the file.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (go test ./internal/arch -update writes it)", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; -update rewrites it if the change is meant):\n%s", file, diff)
	}
}
