//go:build !unix

package proxy

import "io/fs"

// ownerTrusted says nothing where files have no owner of this kind.
func ownerTrusted(fs.FileInfo) bool { return true }
