package image_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svidecar/svidecar/deploy/image"
)

func example() image.Config {
	return image.Config{
		Reference: "registry.example:5000/orders:v1", Architecture: "arm64", User: "65532:65532",
		Entrypoint: []string{"/orders"}, Command: []string{"serve"}, Ports: []string{"8000/tcp"},
		Labels: map[string]string{"org.opencontainers.image.title": "orders"},
		Files: []image.File{
			{Path: "/etc/ssl/certs/roots.crt", Mode: 0o644, Data: []byte("roots")},
			{Path: "/etc/ssl/other", Mode: 0o600, Data: []byte("other")},
			{Path: "/orders", Mode: 0o755, Data: []byte("\x7fELF")},
		},
	}
}

func TestWriteRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*image.Config)
		want   string
	}{
		"no reference":       {func(c *image.Config) { c.Reference = "" }, `the reference is ""`},
		"no tag":             {func(c *image.Config) { c.Reference = "registry.example:5000/orders" }, "want a name, a colon and a tag"},
		"digest for a tag":   {func(c *image.Config) { c.Reference = "orders@sha256:1" + "@" }, "want a name"},
		"no architecture":    {func(c *image.Config) { c.Architecture = "" }, "no architecture"},
		"no entry point":     {func(c *image.Config) { c.Entrypoint = nil }, "no entry point"},
		"no files":           {func(c *image.Config) { c.Files = nil }, "no files"},
		"relative path":      {func(c *image.Config) { c.Files[0].Path = "orders" }, `"orders" is not absolute`},
		"path that climbs":   {func(c *image.Config) { c.Files[0].Path = "/a/../b" }, "not absolute and clean"},
		"the root as a file": {func(c *image.Config) { c.Files[0].Path = "/" }, "not absolute and clean"},
		"set-user-id":        {func(c *image.Config) { c.Files[0].Mode = 0o755 | 1<<23 }, "only permission bits"},
		"a path twice":       {func(c *image.Config) { c.Files[0].Path = "/orders" }, "/orders is there twice"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := example()
			tt.change(&cfg)
			var out bytes.Buffer
			if _, err := image.Write(&out, cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Write = %v, want an error with %q", err, tt.want)
			}
			if out.Len() > 0 {
				t.Errorf("%d bytes were written", out.Len())
			}
		})
	}
}

func TestWriteKeepsWritersError(t *testing.T) {
	full := errors.New("no space left")
	if _, err := image.Write(failing{full}, example()); !errors.Is(err, full) {
		t.Errorf("Write = %v, want %v", err, full)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestSameInputSameBytes(t *testing.T) {
	var one, two bytes.Buffer
	first, err := image.Write(&one, example())
	if err != nil {
		t.Fatal(err)
	}
	second, err := image.Write(&two, example())
	if err != nil {
		t.Fatal(err)
	}
	if first != second || !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Errorf("two archives of one input differ: %s and %s", first, second)
	}
}

// TestArchive follows the archive from its index to the files, as a loader does.
func TestArchive(t *testing.T) {
	var out bytes.Buffer
	digest, err := image.Write(&out, example())
	if err != nil {
		t.Fatal(err)
	}
	files, headers := untar(t, out.Bytes())
	checkTimeless(t, headers)

	var index struct {
		Manifests []descriptor `json:"manifests"`
	}
	decode(t, files["index.json"], &index)
	if len(index.Manifests) != 1 || index.Manifests[0].Digest != digest {
		t.Fatalf("the index has %+v, want the manifest %s", index.Manifests, digest)
	}
	var manifest struct {
		Config descriptor   `json:"config"`
		Layers []descriptor `json:"layers"`
	}
	decode(t, blob(t, files, index.Manifests[0]), &manifest)
	var config struct {
		Architecture, OS string
		Config           struct {
			User                          string
			Entrypoint, Cmd               []string
			ExposedPorts, Volumes, Labels map[string]any
		}
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	decode(t, blob(t, files, manifest.Config), &config)
	if c := config.Config; config.Architecture != "arm64" || config.OS != "linux" || c.User != "65532:65532" || !slices.Equal(c.Entrypoint, []string{"/orders"}) ||
		!slices.Equal(c.Cmd, []string{"serve"}) || c.ExposedPorts["8000/tcp"] == nil || c.Labels["org.opencontainers.image.title"] != "orders" {
		t.Errorf("the configuration is %+v", config)
	}
	layer := gunzip(t, blob(t, files, manifest.Layers[0]))
	if len(config.RootFS.DiffIDs) != 1 || config.RootFS.DiffIDs[0] != sum(layer) {
		t.Errorf("the layer has digest %s, the configuration names %v", sum(layer), config.RootFS.DiffIDs)
	}
	checkLayer(t, layer)

	var docker []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	decode(t, files["manifest.json"], &docker)
	if len(docker) != 1 || files[docker[0].Config] == nil || files[docker[0].Layers[0]] == nil || docker[0].RepoTags[0] != example().Reference {
		t.Errorf("Docker's manifest is %+v", docker)
	}
}

func checkLayer(t *testing.T, layer []byte) {
	t.Helper()
	_, headers := untar(t, layer)
	checkTimeless(t, headers)
	var got []string
	for _, h := range headers {
		got = append(got, fmt.Sprintf("%s %o %d:%d %d", h.Name, h.Mode, h.Uid, h.Gid, h.Size))
	}
	want := []string{
		"etc/ 755 0:0 0", "etc/ssl/ 755 0:0 0", "etc/ssl/certs/ 755 0:0 0", "etc/ssl/certs/roots.crt 644 0:0 5",
		"etc/ssl/other 600 0:0 5", "orders 755 0:0 4",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the layer (-want +got):\n%s", diff)
	}
}

func checkTimeless(t *testing.T, headers []*tar.Header) {
	t.Helper()
	for _, h := range headers {
		if h.ModTime.Unix() != 0 || h.Uname != "" {
			t.Errorf("%s tells when or by whom it was made: %v, %q", h.Name, h.ModTime, h.Uname)
		}
	}
}

type descriptor struct {
	Digest string `json:"digest"`
	Size   int    `json:"size"`
}

// blob gives what a descriptor describes, if it is that.
func blob(t *testing.T, files map[string][]byte, d descriptor) []byte {
	t.Helper()
	data := files["blobs/sha256/"+strings.TrimPrefix(d.Digest, "sha256:")]
	if sum(data) != d.Digest || len(data) != d.Size {
		t.Fatalf("blob %s has digest %s and %d bytes, want %d", d.Digest, sum(data), len(data), d.Size)
	}
	return data
}

func sum(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

func decode(t *testing.T, data []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatalf("%v in %q", err, data)
	}
}

func gunzip(t *testing.T, data []byte) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func untar(t *testing.T, data []byte) (files map[string][]byte, headers []*tar.Header) {
	t.Helper()
	files = map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files, headers
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
		headers = append(headers, h)
	}
}
