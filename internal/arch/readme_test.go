package arch_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v4"

	"github.com/svidecar/svidecar/imds"
	"github.com/svidecar/svidecar/internal/config"
)

// The commands that README.md begins with, word for word.
const (
	readmeRun  = "go run ./cmd/svidecar dev"
	readmeAsk  = "curl -H Metadata:true 'http://127.0.0.1:8000/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net'"
	readmeTest = "make test"
	readmeApp  = "go run ./cmd/svidecar dev -- COMMAND"
)

// appMark makes this test binary act as the app that `svidecar dev` runs.
const appMark = "README_TEST_IS_THE_APP"

// page is one document.
type page struct {
	name   string // from the root
	text   string
	blocks []block
}

// block is one fenced block.
type block struct {
	language string
	lines    []string
}

// program is a built svidecar and what its --help says.
type program struct {
	path      string
	flags     map[string]map[string]bool // by subcommand
	variables map[string]bool
}

// TestDocuments holds what README.md and docs/*.md name against the program.
func TestDocuments(t *testing.T) {
	tr := realTree(t)
	pages := readPages(t, tr)
	p := buildReadme(t)
	t.Run("commands", func(t *testing.T) { checkReadme(t, tr, pages["README.md"]) })
	for _, name := range sortedNames(pages) {
		t.Run(name, func(t *testing.T) {
			checkLinks(t, tr, pages, pages[name])
			checkNames(t, tr, p, pages[name])
		})
	}
	t.Run("sections that the code cites", func(t *testing.T) { checkCitations(t, tr, pages) })
	t.Run("errors", func(t *testing.T) { checkErrors(t, pages["docs/protocol.md"]) })
	t.Run("codes of Entra", func(t *testing.T) { checkCodes(t, tr, pages["docs/operations.md"]) })
	t.Run("configuration", func(t *testing.T) { checkConfiguration(t, pages["docs/operations.md"]) })
	t.Run("manifest", func(t *testing.T) { checkManifest(t, p, pages["docs/operations.md"]) })
	t.Run("redirection", func(t *testing.T) { checkRedirection(t, p, pages["docs/operations.md"]) })
	t.Run("dev", func(t *testing.T) { runReadme(t, p, pages) })
	t.Run("dev with a command", func(t *testing.T) { runApp(t, p) })
}

// TestReadmeApp is the app of "dev with a command"; by itself it does nothing.
func TestReadmeApp(t *testing.T) {
	if os.Getenv(appMark) == "" {
		return
	}
	target := os.Getenv("IDENTITY_ENDPOINT") + "?api-version=2019-08-01&resource=https://vault.azure.net"
	wantToken(t, target, "X-IDENTITY-HEADER", os.Getenv("IDENTITY_HEADER"))
}

func sortedNames[V any](m map[string]V) (names []string) {
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func readPages(t *testing.T, tr *tree) map[string]page {
	t.Helper()
	pages := map[string]page{}
	for name, text := range tr.all {
		if name == "README.md" || path.Dir(name) == "docs" && path.Ext(name) == ".md" {
			pages[name] = page{name, string(text), blocksOf(string(text))}
		}
	}
	for _, name := range []string{"README.md", "docs/protocol.md", "docs/operations.md", "docs/threat-model.md", "docs/decisions.md"} {
		if len(pages[name].text) == 0 {
			t.Fatalf("there is no %s", name)
		}
	}
	return pages
}

// blocksOf gives the fenced blocks; lines that end in a backslash are joined.
func blocksOf(text string) (blocks []block) {
	var open *block
	for line := range strings.Lines(text) {
		trimmed := strings.TrimSpace(line)
		fence, isFence := strings.CutPrefix(trimmed, "```")
		switch {
		case isFence && open == nil:
			open = &block{language: fence}
		case isFence:
			blocks = append(blocks, *open)
			open = nil
		case open != nil:
			line = strings.TrimRight(line, "\r\n")
			if n := len(open.lines); n > 0 && strings.HasSuffix(open.lines[n-1], `\`) {
				open.lines[n-1] = strings.TrimSuffix(open.lines[n-1], `\`) + trimmed
			} else {
				open.lines = append(open.lines, line)
			}
		}
	}
	return blocks
}

// buildReadme builds what the README's command would run.
func buildReadme(t *testing.T) program {
	t.Helper()
	words := strings.Fields(readmeRun)
	p := program{path: filepath.Join(t.TempDir(), "svidecar"), flags: map[string]map[string]bool{}, variables: map[string]bool{}}
	if runtime.GOOS == "windows" {
		p.path += ".exe"
	}
	build := exec.Command("go", "build", "-o", p.path, words[2])
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build, err, out)
	}
	for _, m := range subcommandLine.FindAllStringSubmatch(p.help(t), -1) {
		p.learn(t, m[1])
		for _, below := range subcommandLine.FindAllStringSubmatch(p.help(t, m[1]), -1) {
			p.learn(t, m[1], below[1])
		}
	}
	if len(p.flags) < 6 || len(p.variables) < 20 {
		t.Fatalf("--help names %d subcommands and %d variables: it was misread", len(p.flags), len(p.variables))
	}
	return p
}

// learn notes the flags of a subcommand, by its words, and their variables.
func (p program) learn(t *testing.T, words ...string) {
	t.Helper()
	help, flags := p.help(t, words...), map[string]bool{"help": true}
	for _, f := range helpFlag.FindAllStringSubmatch(help, -1) {
		flags[f[1]] = true
	}
	for _, v := range ourVariable.FindAllString(help, -1) {
		p.variables[v] = true
	}
	p.flags[strings.Join(words, " ")] = flags
}

var (
	subcommandLine = regexp.MustCompile(`(?m)^  ([a-z]+)  +\S`)
	helpFlag       = regexp.MustCompile(`(?m)^ +(?:-h, )?--([a-z-]+)`)
	ourVariable    = regexp.MustCompile(`SVIDECAR_[A-Z0-9_]+`)
	ourMetric      = regexp.MustCompile(`\bsvidecar_[a-z_]+`)
	bareFlag       = regexp.MustCompile(`^--([a-z][a-z-]*)`)
	codeSpan       = regexp.MustCompile("`[^`\n]+`")
	goTestName     = regexp.MustCompile(`^(Test|Fuzz|Benchmark)[A-Z]\w*$`)
	ourGoFile      = regexp.MustCompile(`^[a-z0-9_/]+\.go$`)
)

func (p program) help(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(p.path, append(args, "--help")...).Output()
	if err != nil {
		t.Fatalf("svidecar %v --help: %v", args, err)
	}
	return string(out)
}

func checkReadme(t *testing.T, tr *tree, readme page) {
	var lines []string
	for _, b := range readme.blocks {
		if b.language == "sh" {
			lines = append(lines, b.lines...)
		}
	}
	for _, want := range []string{readmeRun, readmeAsk, readmeTest, readmeApp} {
		if !slices.Contains(lines, want) {
			t.Errorf("README.md has no line %q in a shell block", want)
		}
	}
	target := strings.Fields(readmeTest)[1]
	if !regexp.MustCompile(`(?m)^` + target + `:`).Match(tr.all["Makefile"]) {
		t.Errorf("Makefile has no target %s", target)
	}
}

// checkNames wants each subcommand, flag, variable, test and file that a page
// names to exist.
func checkNames(t *testing.T, tr *tree, p program, pg page) {
	for _, b := range pg.blocks {
		for _, line := range b.lines {
			if b.language == "sh" {
				p.checkCommand(t, line)
			}
		}
	}
	for _, span := range codeSpan.FindAllString(pg.text, -1) {
		span = strings.Trim(span, "`")
		p.checkCommand(t, span)
		if m := bareFlag.FindStringSubmatch(span); m != nil && !p.anyFlag(m[1]) {
			t.Errorf("no subcommand has the flag %s", span)
		}
		if goTestName.MatchString(span) && !definesTest(tr, span) {
			t.Errorf("there is no test %s", span)
		}
		if ourGoFile.MatchString(span) && tr.all[span] == nil {
			t.Errorf("there is no file %s", span)
		}
		if target, ok := strings.CutPrefix(span, "make "); ok && !bytes.Contains(tr.all["Makefile"], []byte("\n"+strings.Fields(target)[0]+":")) {
			t.Errorf("there is no target for %s", span)
		}
	}
	for _, v := range ourVariable.FindAllString(pg.text, -1) {
		if !p.variables[v] {
			t.Errorf("there is no variable %s", v)
		}
	}
}

// checkCommand looks for a svidecar command in a line, and for its flags.
func (p program) checkCommand(t *testing.T, line string) {
	words := strings.Fields(line)
	at := slices.IndexFunc(words, func(w string) bool { return path.Base(w) == "svidecar" })
	if at < 0 || at+1 >= len(words) || !regexp.MustCompile(`^[a-z]+$`).MatchString(words[at+1]) {
		return
	}
	name := words[at+1]
	if at+2 < len(words) && p.flags[name+" "+words[at+2]] != nil {
		name += " " + words[at+2]
	}
	flags, ok := p.flags[name]
	if !ok {
		t.Errorf("%q: there is no subcommand %s", line, name)
		return
	}
	for _, w := range words[at+2:] {
		flag, isFlag := strings.CutPrefix(w, "--")
		if w == "--" {
			return
		}
		if flag, _, _ = strings.Cut(flag, "="); isFlag && !flags[flag] {
			t.Errorf("%q: %s has no flag --%s", line, name, flag)
		}
	}
}

func (p program) anyFlag(name string) bool {
	for _, flags := range p.flags {
		if flags[name] {
			return true
		}
	}
	return false
}

func definesTest(tr *tree, name string) bool {
	for _, f := range tr.gos {
		if f.test && bytes.Contains(tr.all[f.path], []byte("\nfunc "+name+"(")) {
			return true
		}
	}
	return false
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ +(.+)$`)
	notSlug = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// checkLinks wants each relative link to lead to a file and a heading.
func checkLinks(t *testing.T, tr *tree, pages map[string]page, pg page) {
	for _, m := range link.FindAllStringSubmatch(pg.text, -1) {
		if strings.Contains(m[1], "://") {
			continue
		}
		file, anchor, _ := strings.Cut(m[1], "#")
		name := pg.name
		if file != "" {
			name = path.Join(path.Dir(pg.name), file)
		}
		if tr.all[name] == nil {
			t.Errorf("link to %s: there is no %s", m[1], name)
		}
		if anchor != "" && !slices.Contains(anchors(pages[name].text), anchor) {
			t.Errorf("link to %s: %s has no such heading", m[1], name)
		}
	}
}

// anchors are the headings of a page as GitHub writes them into URLs.
func anchors(text string) (names []string) {
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		name := notSlug.ReplaceAllString(strings.ToLower(strings.TrimSpace(m[1])), "")
		names = append(names, strings.ReplaceAll(name, " ", "-"))
	}
	return names
}

var (
	commentBreak = regexp.MustCompile(`\n\s*// ?`)
	citation     = regexp.MustCompile(`docs/([a-z-]+\.md), ("[^"\n]+"(?:(?: and|,) "[^"\n]+")*)`)
	quotedTitle  = regexp.MustCompile(`"([^"]+)"`)
)

// checkCitations wants the sections that comments name to exist.
func checkCitations(t *testing.T, tr *tree, pages map[string]page) {
	found := 0
	for _, f := range tr.gos {
		if f.path == "internal/arch/readme_test.go" {
			continue
		}
		text := commentBreak.ReplaceAllString(string(tr.all[f.path]), " ")
		for _, m := range citation.FindAllStringSubmatch(text, -1) {
			for _, title := range quotedTitle.FindAllStringSubmatch(m[2], -1) {
				found++
				if !regexp.MustCompile(`(?m)^#+ ` + regexp.QuoteMeta(title[1]) + `$`).MatchString(pages["docs/"+m[1]].text) {
					t.Errorf("%s cites %q: docs/%s has no such section", f.path, title[1], m[1])
				}
			}
		}
	}
	if found == 0 {
		t.Error("no citation was found")
	}
}

// checkErrors wants a row for each outcome, with its status and error.
func checkErrors(t *testing.T, pg page) {
	for _, o := range imds.Outcomes() {
		code := ""
		if o != imds.OK {
			reply := httptest.NewRecorder()
			if err := imds.WriteRefusal(reply, &imds.Refusal{Outcome: o}, "x"); err != nil {
				t.Fatal(err)
			}
			var body struct{ Error string }
			if err := json.Unmarshal(reply.Body.Bytes(), &body); err != nil {
				t.Fatal(err)
			}
			code = " `" + body.Error + "`"
		}
		if row := fmt.Sprintf("\n| `%s` | %d |%s |", o, o.Status(), code); !strings.Contains(pg.text, row) {
			t.Errorf("%s has no row that begins %q", pg.name, row)
		}
	}
}

// checkCodes wants the table of Entra's codes to be that of the code.
func checkCodes(t *testing.T, tr *tree, pg page) {
	_, section, _ := strings.Cut(pg.text, "### Codes of Entra")
	section, _, _ = strings.Cut(section, "\n## ")
	listed := regexp.MustCompile(`\b\d{5,7}\b`).FindAllString(section, -1)
	var known []string
	for _, m := range regexp.MustCompile(`(?m)^\t(\d+): +\{`).FindAllSubmatch(tr.all["exchange/aadsts.go"], -1) {
		known = append(known, string(m[1]))
	}
	slices.Sort(listed)
	slices.Sort(known)
	if diff := cmp.Diff(known, slices.Compact(listed)); diff != "" || len(known) == 0 {
		t.Errorf("%s (-code +document):\n%s", pg.name, diff)
	}
}

// checkConfiguration loads the example of the file.
func checkConfiguration(t *testing.T, pg page) {
	const first = "# svidecar.yaml"
	at := slices.IndexFunc(pg.blocks, func(b block) bool { return b.language == "yaml" && b.lines[0] == first })
	if at < 0 {
		t.Fatalf("%s has no yaml block that begins %q", pg.name, first)
	}
	file := filepath.Join(t.TempDir(), "svidecar.yaml")
	if err := os.WriteFile(file, []byte(strings.Join(pg.blocks[at].lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(nil, []string{"SVIDECAR_CONFIG=" + file})
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Identities) != 2 || !cfg.Identities[0].Default || len(cfg.Sources) != 2 || cfg.Identities[1].Source != "own" {
		t.Errorf("the example gives identities %+v and sources %+v", cfg.Identities, cfg.Sources)
	}
}

// manifest is what the test reads of the Deployment.
type manifest struct {
	Kind string
	Spec struct {
		Template struct {
			Metadata struct{ Annotations map[string]string }
			Spec     struct {
				InitContainers, Containers []container `yaml:",omitempty"`
			}
		}
	}
}

type container struct {
	Name          string
	RestartPolicy string
	Args          []string
	Env           []struct {
		Name, Value string
		ValueFrom   map[string]map[string]string
	}
	StartupProbe    struct{ Exec struct{ Command []string } }
	SecurityContext map[string]any
}

// environ is the container's, with secret where a Secret stands.
func (c container) environ(secret string) map[string]string {
	env := map[string]string{}
	for _, v := range c.Env {
		env[v.Name] = v.Value
		if v.ValueFrom != nil {
			env[v.Name] = secret
		}
	}
	return env
}

// checkManifest runs the sidecar's arguments and variables, and those that
// azure-workload-identity's webhook adds, through the real parser, and holds the
// app's variables against what is served.
func checkManifest(t *testing.T, p program, pg page) {
	side, app := deployment(t, pg)
	const header = "0123456789abcdef"
	env := side.environ(header)
	env["AZURE_CLIENT_ID"] = "11111111-1111-1111-1111-111111111111"
	env["AZURE_TENANT_ID"] = "22222222-2222-2222-2222-222222222222"
	env["AZURE_FEDERATED_TOKEN_FILE"] = "/var/run/secrets/azure/tokens/azure-identity-token"
	env["AZURE_AUTHORITY_HOST"] = "https://login.microsoftonline.com/"
	var environ []string
	for name, value := range env {
		environ = append(environ, name+"="+value)
	}
	fs := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	config.Register(fs)
	if len(side.Args) == 0 || side.Args[0] != "serve" || side.RestartPolicy != "Always" {
		t.Fatalf("the sidecar has args %q and restartPolicy %q", side.Args, side.RestartPolicy)
	}
	if err := fs.Parse(side.Args[1:]); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(fs, environ)
	if err != nil {
		t.Fatal(err)
	}
	endpoint := "http://" + cfg.Listen + "/msi/token"
	got := app.environ(header)
	for name, want := range map[string]string{
		"IDENTITY_ENDPOINT": endpoint, "MSI_ENDPOINT": endpoint,
		"IDENTITY_HEADER": cfg.IdentityHeader.Reveal(), "MSI_SECRET": cfg.IdentityHeader.Reveal(),
		"AZURE_POD_IDENTITY_AUTHORITY_HOST": "http://" + cfg.Listen,
	} {
		if got[name] != want || want == "" {
			t.Errorf("the app has %s=%q, want %q", name, got[name], want)
		}
	}
	p.checkCommand(t, strings.Join(side.StartupProbe.Exec.Command, " "))
	for name, want := range map[string]any{"runAsNonRoot": true, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
		"capabilities": map[string]any{"drop": []any{"ALL"}}, "seccompProfile": map[string]any{"type": "RuntimeDefault"}} {
		if diff := cmp.Diff(want, side.SecurityContext[name]); diff != "" {
			t.Errorf("securityContext.%s (-want +got):\n%s", name, diff)
		}
	}
}

// checkRedirection wants the init container to have what the command asks for,
// and no more, and its words to be the program's.
func checkRedirection(t *testing.T, p program, pg page) {
	for _, b := range pg.blocks {
		var m manifest
		text := camelKeys.ReplaceAllStringFunc(strings.Join(b.lines, "\n"), strings.ToLower)
		if b.language != "yaml" || yaml.Unmarshal([]byte(text), &m) != nil || len(m.Spec.Template.Spec.InitContainers) != 2 {
			continue
		}
		first, side := m.Spec.Template.Spec.InitContainers[0], m.Spec.Template.Spec.InitContainers[1]
		p.checkCommand(t, "svidecar "+strings.Join(first.Args, " "))
		p.checkCommand(t, strings.Join(side.StartupProbe.Exec.Command, " "))
		want := map[string]any{
			"runAsUser": 0, "runAsNonRoot": false, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
			"capabilities":   map[string]any{"drop": []any{"ALL"}, "add": []any{"NET_ADMIN"}},
			"seccompProfile": map[string]any{"type": "RuntimeDefault"},
		}
		if diff := cmp.Diff(want, first.SecurityContext); diff != "" || first.Args[0] != "redirect" {
			t.Errorf("args %q, securityContext (-want +got):\n%s", first.Args, diff)
		}
		return
	}
	t.Errorf("%s has no manifest with the redirection", pg.name)
}

func deployment(t *testing.T, pg page) (side, app container) {
	t.Helper()
	for _, b := range pg.blocks {
		for doc := range strings.SplitSeq(strings.Join(b.lines, "\n"), "\n---\n") {
			var m manifest
			if b.language != "yaml" || yaml.Unmarshal([]byte(camelKeys.ReplaceAllStringFunc(doc, strings.ToLower)), &m) != nil || m.Kind != "Deployment" {
				continue
			}
			pod := m.Spec.Template.Spec
			if len(pod.InitContainers) != 1 || len(pod.Containers) != 1 {
				t.Fatalf("the Deployment has %d init containers and %d containers", len(pod.InitContainers), len(pod.Containers))
			}
			if skip := m.Spec.Template.Metadata.Annotations["azure.workload.identity/skip-containers"]; skip != pod.Containers[0].Name {
				t.Errorf("skip-containers is %q, want the app, %q", skip, pod.Containers[0].Name)
			}
			return pod.InitContainers[0], pod.Containers[0]
		}
	}
	t.Fatalf("%s has no Deployment", pg.name)
	return
}

// camelKeys are the keys that Go's fields are matched by, in lower case.
var camelKeys = regexp.MustCompile(`\b(initContainers|restartPolicy|valueFrom|startupProbe|securityContext)\b:`)

// runReadme starts what README.md says, on free ports, and asks as it says:
// by the same line that the program prints.
func runReadme(t *testing.T, p program, pages map[string]page) {
	dev := p.start(t, strings.Fields(readmeRun)[3:])
	asked := dev.next(t, "  curl ")
	target := dev.target(t, asked)
	address := target.Host
	if want := strings.Replace(readmeAsk, "127.0.0.1:8000", address, 1); strings.TrimSpace(asked) != want {
		t.Errorf("dev prints %q, README.md says %q", asked, want)
	}
	_, opsURL, _ := strings.Cut(dev.next(t, "health "), "http://")
	opsURL, _, _ = strings.Cut("http://"+opsURL, "/readyz")
	dev.next(t, "Ctrl-C")

	wantToken(t, target.String(), "Metadata", "true")
	if curl, err := exec.LookPath("curl"); err == nil {
		out, err := exec.Command(curl, "-sS", "--noproxy", "*", "-H", "Metadata:true", target.String()).Output()
		if err != nil || !bytes.HasPrefix(out, []byte(`{"access_token":"`)) {
			t.Errorf("curl: %v\n%s", err, out)
		}
	}
	refused := get(t, "http://"+address+"/metadata/identity/oauth2/token", "Metadata", "true") // no resource
	if refused.StatusCode != http.StatusBadRequest {
		t.Errorf("without a resource: %s", refused.Status)
	}
	checkDocumentedMetrics(t, get(t, opsURL+"/metrics", "", "").body, pages)
	checkLog(t, dev.next(t, `"outcome":"ok"`), pages["docs/operations.md"])
	checkLog(t, dev.next(t, `"outcome":"invalid_request"`), pages["docs/operations.md"])
}

// webhookMetrics are the names of the webhook's own metrics.
func webhookMetrics(t *testing.T) (names []string) {
	t.Helper()
	source, err := os.ReadFile(filepath.Join(root, "deploy", "webhook", "metrics.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`Name: +"(svidecar_webhook_[a-z_]+)"`).FindAllSubmatch(source, -1) {
		names = append(names, string(m[1]))
	}
	if len(names) < 3 {
		t.Fatalf("deploy/webhook/metrics.go names %d metrics: it was misread", len(names))
	}
	return names
}

// checkDocumentedMetrics wants documented metrics to exist, and metrics to be documented.
func checkDocumentedMetrics(t *testing.T, text string, pages map[string]page) {
	types := regexp.MustCompile(`(?m)^# TYPE (svidecar_\S+)`).FindAllStringSubmatch(text, -1)
	if len(types) == 0 {
		t.Fatalf("/metrics has none of ours:\n%s", text)
	}
	exist := map[string]bool{}
	for _, m := range types {
		exist[m[1]], exist[m[1]+"_bucket"] = true, true
		if !strings.Contains(pages["docs/operations.md"].text, "| `"+m[1]+"` |") {
			t.Errorf("docs/operations.md does not explain %s", m[1])
		}
	}
	for _, metric := range webhookMetrics(t) {
		exist[metric] = true
		if !strings.Contains(pages["docs/kubernetes.md"].text, "| `"+metric+"` |") {
			t.Errorf("docs/kubernetes.md does not explain %s", metric)
		}
	}
	for _, name := range sortedNames(pages) {
		for _, metric := range ourMetric.FindAllString(pages[name].text, -1) {
			if !exist[metric] {
				t.Errorf("%s names %s, which does not exist", name, metric)
			}
		}
	}
}

// checkLog wants each key of a line to be explained.
func checkLog(t *testing.T, line string, pg page) {
	keys := map[string]any{}
	if err := json.Unmarshal([]byte(line), &keys); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	_, section, _ := strings.Cut(pg.text, "\n## Logs\n")
	for _, key := range sortedNames(keys) {
		if !strings.Contains(section, "`"+key+"`") {
			t.Errorf("%s does not explain the key %s", pg.name, key)
		}
	}
}

// runApp lets dev run this test binary as an app.
func runApp(t *testing.T, p program) {
	words := strings.Fields(readmeApp)
	dev := p.command(t, append(words[3:len(words)-1], os.Args[0], "-test.run=^TestReadmeApp$", "-test.v"))
	dev.Env = append(dev.Env, appMark+"=1")
	out, err := dev.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestReadmeApp")) {
		t.Errorf("%v: %v\n%s", dev, err, out)
	}
}

// command is svidecar on free ports, with none of this machine's settings.
func (p program) command(t *testing.T, args []string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, p.path, args...)
	for _, pair := range os.Environ() {
		if !strings.HasPrefix(pair, "SVIDECAR_") && !strings.HasPrefix(pair, "AZURE_") {
			cmd.Env = append(cmd.Env, pair)
		}
	}
	cmd.Env = append(cmd.Env, "SVIDECAR_LISTEN=127.0.0.1:0", "SVIDECAR_OPS_LISTEN=127.0.0.1:0", "SVIDECAR_LOG_FORMAT=json", "SVIDECAR_LOG_LEVEL=debug")
	return cmd
}

// running is a svidecar that has been started; lines are its standard error.
type running struct{ lines *bufio.Scanner }

func (p program) start(t *testing.T, args []string) running {
	t.Helper()
	cmd := p.command(t, args)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = r.Close()
	})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return running{bufio.NewScanner(r)}
}

// next skips to the line that holds text. If none comes, the process's deadline
// ends the wait.
func (r running) next(t *testing.T, text string) string {
	t.Helper()
	var seen strings.Builder
	for r.lines.Scan() {
		if strings.Contains(r.lines.Text(), text) {
			return r.lines.Text()
		}
		seen.WriteString(r.lines.Text() + "\n")
	}
	t.Fatalf("no line has %q:\n%s", text, seen.String())
	return ""
}

func (r running) target(t *testing.T, line string) *url.URL {
	t.Helper()
	_, quoted, _ := strings.Cut(line, "'")
	target, err := url.Parse(strings.TrimSuffix(quoted, "'"))
	if err != nil || target.Host == "" {
		t.Fatalf("no URL in %q (%v)", line, err)
	}
	return target
}

type reply struct {
	*http.Response
	body string
}

// get asks directly, whatever proxy this machine has.
func get(t *testing.T, target, header, value string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	if header != "" {
		req.Header.Set(header, value)
	}
	client := &http.Client{Transport: &http.Transport{}, Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp, string(body)}
}

// wantToken asks for a token and looks at the fields that clients need.
func wantToken(t *testing.T, target, header, value string) {
	t.Helper()
	got := get(t, target, header, value)
	fields := map[string]string{}
	if err := json.Unmarshal([]byte(got.body), &fields); err != nil || got.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %s (%v)", target, got.Status, got.body, err)
	}
	if fields["access_token"] == "" || fields["token_type"] != "Bearer" || fields["resource"] != "https://vault.azure.net" {
		t.Errorf("%s: fields %v", target, sortedNames(fields))
	}
}
