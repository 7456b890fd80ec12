package keydir

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/svidecar/svidecar/mint"
)

const (
	manifestName    = "keys.json"
	manifestVersion = 1
	maxManifest     = 1 << 20 // bytes
	maxDocumented   = 100     // keys in a document that Entra reads
	defaultWait     = 24 * time.Hour
	minWait         = time.Second
	maxWait         = 30 * 24 * time.Hour
)

// manifest is the truth about a directory. It is public: anyone may read it, and
// who serves the documents needs nothing else.
type manifest struct {
	Version int      `json:"version"`
	Issuer  string   `json:"issuer"`
	Wait    duration `json:"publication_wait"`
	Keys    []entry  `json:"keys"` // in the order in which they were made; never none
}

// entry is what is remembered of one key. Published and SignsFrom are set
// together, and absent before.
type entry struct {
	ID        string    `json:"kid"`
	PublicKey []byte    `json:"public_key"` // DER SubjectPublicKeyInfo
	Created   time.Time `json:"created"`
	Published time.Time `json:"published,omitzero"`
	SignsFrom time.Time `json:"signs_from,omitzero"`

	public *rsa.PublicKey // PublicKey, parsed
}

// duration is written as 24h0m0s.
type duration time.Duration

func (d duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (d *duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = duration(parsed)
	return err
}

func newEntry(pub crypto.PublicKey, now time.Time) (entry, error) {
	key, ok := pub.(*rsa.PublicKey)
	if !ok {
		return entry{}, errors.New("not an RSA key")
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return entry{}, err
	}
	id, err := mint.KeyID(key)
	return entry{ID: id, PublicKey: der, Created: now.UTC().Truncate(time.Second), public: key}, err
}

func (m manifest) clone() manifest {
	m.Keys = slices.Clone(m.Keys)
	return m
}

func (m manifest) encode() ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(m)
	return out.Bytes(), err
}

// decode reads what encode writes, and refuses what it does not know: a newer
// svidecar, or a person, meant something by it.
func decode(data []byte) (manifest, error) {
	var m manifest
	if err := onlyVersion(data); err != nil {
		return m, err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil {
		return m, errors.New(oneLine(err))
	}
	if err := exactNames(json.NewDecoder(bytes.NewReader(data))); err != nil {
		return m, errors.New(oneLine(err))
	}
	return m, m.check()
}

// memberNames are the members of a manifest and of its keys.
var memberNames = []string{"version", "issuer", "publication_wait", "keys", "kid", "public_key", "created", "published", "signs_from"}

// exactNames refuses members that are there twice, and such as "Issuer", which
// package encoding/json takes for issuer: other readers would take another value.
// The input is one JSON value, as the caller knows.
func exactNames(dec *json.Decoder) error {
	token, err := dec.Token()
	if err != nil {
		return err
	}
	opening, ok := token.(json.Delim)
	if !ok {
		return nil
	}
	seen := make(map[json.Token]bool)
	for dec.More() {
		if opening == '{' {
			name, err := dec.Token()
			if err != nil {
				return err
			}
			switch text, _ := name.(string); {
			case !slices.Contains(memberNames, text):
				return fmt.Errorf("unknown field %q", text)
			case seen[name]:
				return fmt.Errorf("field %q is there twice", text)
			}
			seen[name] = true
		}
		if err := exactNames(dec); err != nil {
			return err
		}
	}
	_, err = dec.Token() // the closing one
	return err
}

// onlyVersion comes first, so that a newer file is not called damaged. It refuses
// what is not one JSON value, too.
func onlyVersion(data []byte) error {
	var head struct {
		Version *int `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return errors.New(oneLine(err))
	}
	switch {
	case head.Version == nil:
		return errors.New("no version")
	case *head.Version != manifestVersion:
		return fmt.Errorf("version %d, and this svidecar reads version %d only: use the svidecar that wrote it", *head.Version, manifestVersion)
	}
	return nil
}

// oneLine bounds what a decoder quotes of its input.
func oneLine(err error) string {
	return fmt.Sprintf("%.200s", strings.Join(strings.Fields(err.Error()), " "))
}

// check parses the public keys, and leaves to package mint what it knows better:
// the issuer, and the keys that a document may hold.
func (m manifest) check() error {
	if err := checkWait(time.Duration(m.Wait)); err != nil {
		return fmt.Errorf("publication_wait: %w", err)
	}
	public := make([]crypto.PublicKey, len(m.Keys))
	seen := make(map[string]bool, 2*len(m.Keys))
	for i := range m.Keys {
		e := &m.Keys[i]
		if err := e.check(); err != nil {
			return fmt.Errorf("key %d: %w", i+1, err)
		}
		signs := e.SignsFrom.Format(time.RFC3339)
		if seen[e.ID] || !e.SignsFrom.IsZero() && seen[signs] {
			return fmt.Errorf("key %d: its kid or its signs_from is another key's too", i+1)
		}
		seen[e.ID], seen[signs] = true, true
		public[i] = e.public
	}
	_, _, err := mint.Documents(m.Issuer, public...)
	return err
}

func (e *entry) check() error {
	pub, err := x509.ParsePKIXPublicKey(e.PublicKey)
	key, ok := pub.(*rsa.PublicKey)
	if err != nil || !ok {
		return errors.New("public_key is not the base64 of an RSA key's DER SubjectPublicKeyInfo")
	}
	e.public = key
	if id, err := mint.KeyID(key); err != nil || id != e.ID {
		return fmt.Errorf("the kid does not fit public_key, whose kid is %s", id)
	}
	for _, t := range []*time.Time{&e.Created, &e.Published, &e.SignsFrom} {
		if t.Nanosecond() != 0 || !t.IsZero() && (t.Year() < 1970 || t.Year() > 9999) {
			return fmt.Errorf("time %s is not in whole seconds of the years 1970 to 9999", t.Format(time.RFC3339Nano))
		}
		*t = t.UTC()
	}
	switch {
	case e.Created.IsZero():
		return errors.New("created is missing")
	case e.Published.IsZero() != e.SignsFrom.IsZero():
		return errors.New("published and signs_from go together, and one is missing")
	case e.SignsFrom.Before(e.Published):
		return errors.New("signs_from is before published")
	}
	return nil
}

func checkWait(wait time.Duration) error {
	if wait < minWait || wait > maxWait || wait%time.Second != 0 {
		return fmt.Errorf("%v is not a whole number of seconds between %v and %v (24h is safe)", wait, minWait, maxWait)
	}
	return nil
}

// readManifest reads the file whole, following symbolic links. kubelet swaps a
// link and then removes the folder it led to, hence the second try.
func readManifest(dir string) ([]byte, error) {
	if err := checkReadable(dir); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, manifestName)
	data, err := readOnce(path)
	if errors.Is(err, fs.ErrNotExist) {
		data, err = readOnce(path)
	}
	return data, err
}

// checkReadable refuses a directory in which any user may put another manifest in
// the place of ours. With the sticky bit nobody may, as in a Secret that kubelet
// mounts (mode 1777), nor where the file system is read-only, as in a ConfigMap
// (mode 0777).
func checkReadable(dir string) error {
	info, err := os.Stat(dir)
	if err != nil || !info.IsDir() || info.Mode()&fs.ModeSticky != 0 || !othersMayWrite(info) || readOnlyMount(dir) {
		return nil // what is not there, or is no directory, has no manifest
	}
	return openError{dir, info.Mode().Perm(), "700"}
}

// openError is that any user may write to something.
type openError struct {
	path string
	mode fs.FileMode
	want string // mode, for chmod
}

func (e openError) Error() string {
	return fmt.Sprintf("any user may write to %q (mode %#o), and so replace the keys: run chmod %s %s, and see that they are yours", e.path, e.mode, e.want, e.path)
}

func readOnce(path string) ([]byte, error) {
	info, err := os.Stat(path) // before the open, which would wait on a FIFO
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if info, err = file.Stat(); err == nil && othersMayWrite(info) {
		err = openError{path, info.Mode().Perm(), "644"}
	}
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(file, maxManifest+1))
	if err == nil && len(data) > maxManifest {
		err = errors.New("larger than 1 MiB")
	}
	return data, err
}
