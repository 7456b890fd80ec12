package image_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svidecar/svidecar/deploy/image"
)

// dockerfile needs no compiler: its image holds the roots alone.
const dockerfile = `# comment
ARG GO_IMAGE=golang:1
FROM --platform=$BUILDPLATFORM ${GO_IMAGE} AS build
RUN anything goes here

FROM scratch AS base
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
USER 65532:65532
ARG VERSION=dev
LABEL a.version="$VERSION" \
      b="two words"

FROM base AS orders
EXPOSE 8000
ENTRYPOINT ["/orders"]
CMD ["serve", "-v"]
`

// buildOf gives a Build of a Dockerfile in a folder of its own.
func buildOf(t testing.TB, text string) image.Build {
	t.Helper()
	dir := t.TempDir()
	for name, data := range map[string]string{"Dockerfile": text, "roots.pem": "roots"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return image.Build{
		Dir: dir, Target: "orders", Reference: "example.com/orders:v1", Architecture: "amd64", Version: "v1", Roots: filepath.Join(dir, "roots.pem"),
	}
}

func TestPackRefuses(t *testing.T) {
	with := func(old, text string) string { return strings.Replace(dockerfile, old, text, 1) }
	for name, tt := range map[string]struct{ text, want string }{
		"no such stage":             {with("AS orders", "AS other"), "no stage orders"},
		"stage made from nothing":   {with("FROM base", "FROM bass"), "no stage bass"},
		"stage made from itself":    {with("FROM base", "FROM orders"), "made from itself"},
		"stage twice":               {with("AS base", "AS orders"), "line 13 of the Dockerfile: FROM: there are two stages orders"},
		"stage without a name":      {with(" AS orders", ""), "want FROM image AS name"},
		"instruction before a FROM": {"USER 1\n" + dockerfile, "line 1 of the Dockerfile: USER: it stands before the first FROM"},
		"RUN in an image":           {with("EXPOSE 8000", "RUN echo"), "line 14 of the Dockerfile: RUN: an image of static files does not need it"},
		"entry point by shell":      {with(`["/orders"]`, "/orders"), "line 15 of the Dockerfile: ENTRYPOINT: /orders is not a JSON list"},
		"no entry point":            {with(`ENTRYPOINT ["/orders"]`, ""), "has no ENTRYPOINT"},
		"empty command":             {with(`["serve", "-v"]`, "[]"), "CMD: [] is not a JSON list of words"},
		"copy of the context":       {with("COPY --from=build", "COPY"), "COPY: want COPY --from=stage source destination"},
		"copy of another file":      {with("/etc/ssl/certs/ca-certificates.crt /", "/etc/passwd /"), "not /etc/passwd"},
		"label without quotes":      {with(`"two words"`, "two"), `is not name="value"`},
		"unknown variable":          {with("ARG VERSION=dev\n", ""), "no ARG VERSION in this stage"},
		"variable of another stage": {with("EXPOSE 8000", "EXPOSE $VERSION"), "no ARG VERSION in this stage"},
		"empty":                     {"", "no stage orders"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := buildOf(t, tt.text).Pack(t.Context(), &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Pack = %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestPackRefusesWithoutRoots(t *testing.T) {
	b := buildOf(t, dockerfile)
	b.Roots = filepath.Join(b.Dir, "missing.pem")
	if _, err := b.Pack(t.Context(), &bytes.Buffer{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Pack = %v, want %v", err, os.ErrNotExist)
	}
}

// TestPack holds that the Dockerfile is what the image is: written by hand, the same archive comes out.
func TestPack(t *testing.T) {
	var got, want bytes.Buffer
	if _, err := buildOf(t, dockerfile).Pack(t.Context(), &got); err != nil {
		t.Fatal(err)
	}
	_, err := image.Write(&want, image.Config{
		Reference: "example.com/orders:v1", Architecture: "amd64", User: "65532:65532",
		Entrypoint: []string{"/orders"}, Command: []string{"serve", "-v"}, Ports: []string{"8000/tcp"},
		Labels: map[string]string{"a.version": "v1", "b": "two words"},
		Files:  []image.File{{Path: "/etc/ssl/certs/ca-certificates.crt", Mode: 0o644, Data: []byte("roots")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	gotFiles, _ := untar(t, got.Bytes())
	wantFiles, _ := untar(t, want.Bytes())
	if diff := cmp.Diff(wantFiles, gotFiles); diff != "" {
		t.Errorf("the archive (-want +got):\n%s", diff)
	}
}

// TestProjectsDockerfile holds that the project's own Dockerfile can be read, as far as needs no compiler: the end-to-end
// tests run what comes of it.
func TestProjectsDockerfile(t *testing.T) {
	commands, err := filepath.Glob("../../cmd/*/main.go")
	if err != nil || len(commands) == 0 {
		t.Fatalf("no commands (%v)", err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	for _, file := range commands {
		name := filepath.Base(filepath.Dir(file))
		b := image.Build{Dir: "../..", Target: name, Reference: "example.com/" + name + ":v1", Architecture: "amd64", Roots: os.DevNull}
		if _, err := b.Pack(ended, &bytes.Buffer{}); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "go build ./cmd/"+name) {
			t.Errorf("Pack of %s = %v, want that the build of its binary was canceled", name, err)
		}
	}
}

func FuzzPack(f *testing.F) {
	f.Add(dockerfile)
	f.Add("FROM scratch AS orders\nCOPY --from=build /out/orders /orders\nENTRYPOINT [\"/orders\"]")
	f.Add("FROM a AS orders\nLABEL a=\"$\" \\\n\n# b\n")
	f.Fuzz(func(t *testing.T, text string) {
		ctx, end := context.WithCancel(t.Context())
		end() // nothing is compiled
		var out bytes.Buffer
		if _, err := buildOf(t, text).Pack(ctx, &out); (err == nil) != (out.Len() > 0) {
			t.Errorf("%d bytes, error %v", out.Len(), err)
		}
	})
}
