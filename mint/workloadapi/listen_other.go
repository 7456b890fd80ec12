//go:build !unix

package workloadapi

import (
	"errors"
	"io/fs"
	"net"
)

const maxSocketPath = 107

func listen(string, fs.FileMode) (net.Listener, error) {
	return nil, errors.New("this system cannot say who may open a unix socket: serve on Linux or macOS")
}
