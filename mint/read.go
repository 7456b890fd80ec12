package mint

import (
	"errors"
	"io"
	"io/fs"
	"os"
)

var (
	errNotRegular = errors.New("not a regular file")
	errTooLarge   = errors.New("too large")
)

// readRegular reads a regular file of at most limit bytes, following symbolic
// links. kubelet swaps a link and then removes the directory it led to, so a
// path that was resolved in between leads nowhere once: hence the second try.
func readRegular(path string, limit int64) ([]byte, fs.FileInfo, error) {
	data, info, err := readOnce(path, limit)
	if errors.Is(err, fs.ErrNotExist) {
		data, info, err = readOnce(path, limit)
	}
	return data, info, err
}

// readOnce looks before it opens, because opening some devices acts, and again
// afterwards, because the path may lead elsewhere by then. openFlags keep that
// open from waiting for the other end of a FIFO.
func readOnce(path string, limit int64) ([]byte, fs.FileInfo, error) {
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return nil, nil, orNotRegular(err)
	}
	file, err := os.OpenFile(path, openFlags, 0)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil, nil, orNotRegular(err)
	}
	data, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = errTooLarge
	}
	return data, info, err
}

func orNotRegular(err error) error {
	if err != nil {
		return err
	}
	return errNotRegular
}
