package keydir

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// CheckFiles reads the private keys of the active key and of those that are
// published, as [Dir.Signer] will once they sign, and says of each one whether it is
// missing or cannot be read. It also looks at files that were read before: without
// them the next start would fail. If all are missing, the error matches
// [fs.ErrNotExist]: it may be a directory that has the manifest alone.
func (d *Dir) CheckFiles() error {
	var says []string
	var found, missing int
	for _, k := range d.Keys() {
		if k.State != Active && k.State != Published {
			continue
		}
		_, err := d.readKey(k.ID)
		switch {
		case err == nil:
			found++
			continue
		case errors.Is(err, fs.ErrNotExist):
			missing++
		}
		says = append(says, fmt.Sprintf("%s, %v: %s", k.ID, k.State, strings.TrimPrefix(err.Error(), "keydir: ")))
	}
	if len(says) == 0 {
		return nil
	}
	text := "keydir: " + strings.Join(says, "; ")
	if found == 0 && missing == len(says) {
		return missingFiles(text)
	}
	return errors.New(text)
}

// missingFiles says that no file is there.
type missingFiles string

func (e missingFiles) Error() string        { return string(e) }
func (e missingFiles) Is(target error) bool { return target == fs.ErrNotExist }
