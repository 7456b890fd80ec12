//go:build unix

package keydir

import (
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// noFollow makes an open refuse a symbolic link. Whoever may write to the directory
// could make one in the place of the lock.
const noFollow = syscall.O_NOFOLLOW

// ownedByAnother returns the owner, and whether that is not who we run as.
func ownedByAnother(info fs.FileInfo) (uid uint32, another bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return stat.Uid, int(stat.Uid) != os.Geteuid()
}

// readOnlyMount reports whether nobody may write there, by the mount.
func readOnlyMount(path string) bool { return unix.Access(path, unix.W_OK) == unix.EROFS }

// othersMayWrite reports whether any user may write there. A group may: that
// is how kubelet hands a volume to a pod (fsGroup).
func othersMayWrite(info fs.FileInfo) bool { return info.Mode().Perm()&0o002 != 0 }
