// Package image owns container images that are made of static files, and the archives that they travel in. It never
// needs a daemon, never fetches anything, and never runs what it packs.
//
// An archive is an OCI image layout that carries the manifest of "docker load" too, so both kinds of tools read it.
// The same input gives the same bytes, with the same version of Go: nothing in it tells when or where it was
// made.
package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
)

// Config is an image of one layer, made from nothing.
type Config struct {
	Reference    string            // name and tag, with the registry: registry.example.com/svidecar:v1; required
	Architecture string            // as Go names it; required
	User         string            // number, or numbers of user and group; empty: root
	Entrypoint   []string          // required
	Command      []string          // arguments that a container's own replace
	Ports        []string          // that it listens on, such as 8000/tcp
	Labels       map[string]string // of the image
	Files        []File            // at least one, each path once
}

// File is one file of the image. Its folders are made, with mode 0755; it belongs to root.
type File struct {
	Path string      // absolute and clean
	Mode fs.FileMode // permission bits only
	Data []byte
}

const (
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
	typeIndex    = "application/vnd.oci.image.index.v1+json"
)

// Write writes the archive, and gives the digest by which a registry will know the image.
func Write(w io.Writer, cfg Config) (digest string, err error) {
	if err := cfg.check(); err != nil {
		return "", fmt.Errorf("image: %w", err)
	}
	plain, err := layer(cfg.Files)
	if err != nil {
		return "", fmt.Errorf("image: %w", err)
	}
	packed, err := compressed(plain)
	if err != nil {
		return "", fmt.Errorf("image: %w", err)
	}
	a := archive{tar: tar.NewWriter(w)}
	a.write(cfg, plain, packed)
	if a.err = errors.Join(a.err, a.tar.Close()); a.err != nil {
		return "", fmt.Errorf("image: %w", a.err)
	}
	return a.digest, nil
}

func (cfg Config) check() error {
	name, tag, _ := cutLast(cfg.Reference, ":")
	switch {
	case name == "" || tag == "" || strings.ContainsAny(tag, "/@"):
		return fmt.Errorf("the reference is %q: want a name, a colon and a tag", cfg.Reference)
	case cfg.Architecture == "":
		return errors.New("no architecture")
	case len(cfg.Entrypoint) == 0:
		return errors.New("no entry point")
	case len(cfg.Files) == 0:
		return errors.New("no files")
	}
	seen := map[string]bool{}
	for _, f := range cfg.Files {
		switch {
		case !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || f.Path == "/":
			return fmt.Errorf("the path %q is not absolute and clean", f.Path)
		case f.Mode&^fs.ModePerm != 0:
			return fmt.Errorf("%s has mode %v: only permission bits may be set", f.Path, f.Mode)
		case seen[f.Path]:
			return fmt.Errorf("%s is there twice", f.Path)
		}
		seen[f.Path] = true
	}
	return nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// layer is the file system as one tar. Times stay at zero.
func layer(files []File) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	made := map[string]bool{}
	for _, f := range files {
		name := strings.TrimPrefix(f.Path, "/")
		for i, c := range name {
			if dir := name[:i+1]; c == '/' && !made[dir] {
				made[dir] = true
				if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, Format: tar.FormatUSTAR}); err != nil {
					return nil, err
				}
			}
		}
		if err := addFile(w, name, f.Mode, f.Data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil { // it writes the end
		return nil, err
	}
	return out.Bytes(), nil
}

func addFile(w *tar.Writer, name string, mode fs.FileMode, data []byte) error {
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: int64(mode), Size: int64(len(data)), Format: tar.FormatUSTAR}
	if err := w.WriteHeader(header); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

func compressed(data []byte) ([]byte, error) {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(data); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil { // it writes what is left
		return nil, err
	}
	return out.Bytes(), nil
}

// archive is the layout being written. It keeps its first error.
type archive struct {
	tar    *tar.Writer
	digest string // of the manifest
	err    error
}

type object = map[string]any

func (a *archive) write(cfg Config, plain, packed []byte) {
	layerBlob := a.blob(typeLayer, packed)
	configBlob := a.blob(typeConfig, a.json(cfg.document(plain)))
	manifest := a.blob(typeManifest, a.json(object{
		"schemaVersion": 2, "mediaType": typeManifest, "config": configBlob, "layers": []object{layerBlob},
	}))
	a.digest, _ = manifest["digest"].(string)
	_, tag, _ := cutLast(cfg.Reference, ":")
	manifest["platform"] = object{"architecture": cfg.Architecture, "os": "linux"}
	manifest["annotations"] = object{"io.containerd.image.name": cfg.Reference, "org.opencontainers.image.ref.name": tag}
	a.file("oci-layout", a.json(object{"imageLayoutVersion": "1.0.0"}))
	a.file("index.json", a.json(object{"schemaVersion": 2, "mediaType": typeIndex, "manifests": []object{manifest}}))
	a.file("manifest.json", a.json([]object{{
		"Config": blobPath(configBlob), "RepoTags": []string{cfg.Reference}, "Layers": []string{blobPath(layerBlob)},
	}}))
}

// document is the image's configuration (OCI image specification, config.md).
func (cfg Config) document(plain []byte) object {
	ports := object{}
	for _, p := range cfg.Ports {
		ports[p] = object{}
	}
	return object{
		"architecture": cfg.Architecture,
		"os":           "linux",
		"config": object{
			"User": cfg.User, "Entrypoint": cfg.Entrypoint, "Cmd": cfg.Command, "ExposedPorts": ports,
			"Labels": cfg.Labels, "WorkingDir": "/", "Env": []string{"PATH=/"},
		},
		"rootfs": object{"type": "layers", "diff_ids": []string{digest(plain)}},
	}
}

// blob adds a file by its digest, and describes it.
func (a *archive) blob(mediaType string, data []byte) object {
	descriptor := object{"mediaType": mediaType, "digest": digest(data), "size": len(data)}
	a.file(blobPath(descriptor), data)
	return descriptor
}

func blobPath(descriptor object) string {
	d, _ := descriptor["digest"].(string)
	return "blobs/" + strings.Replace(d, ":", "/", 1)
}

func (a *archive) file(name string, data []byte) {
	if a.err == nil {
		a.err = addFile(a.tar, name, 0o644, data)
	}
}

func (a *archive) json(v any) []byte {
	data, err := json.Marshal(v)
	if a.err == nil {
		a.err = err
	}
	return data
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}
