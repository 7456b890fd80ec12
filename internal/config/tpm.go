package config

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// tpmPrefix begins a key-file that is no file.
const tpmPrefix = "tpm:"

// TPMKey names a key in a TPM 2.0.
type TPMKey struct {
	Handle uint32 // persistent, of the TPM's owner
	Device string // an absolute path, or unix: and one; empty means the system's TPM
}

// TPM tells which key of a TPM a key-file names: tpm:HANDLE[?device=DEVICE]. It
// gives false for a path.
func TPM(keyFile string) (key TPMKey, ok bool) {
	if !strings.HasPrefix(keyFile, tpmPrefix) {
		return TPMKey{}, false
	}
	key, err := parseTPM(keyFile)
	return key, err == nil
}

// parseKeyFile takes a path, or a key in a TPM.
func parseKeyFile(s string) (string, error) {
	if !strings.HasPrefix(s, tpmPrefix) {
		return parsePath(s)
	}
	_, err := parseTPM(s)
	return s, err
}

func parseTPM(s string) (TPMKey, error) {
	handle, query, given := strings.Cut(strings.TrimPrefix(s, tpmPrefix), "?")
	n, err := parseHandle(handle)
	if err != nil || !given {
		return TPMKey{Handle: n}, err
	}
	device, err := parseDevice(query)
	return TPMKey{Handle: n, Device: device}, err
}

// parseHandle wants a handle as TPM tools print it, in the range of the owner's
// persistent objects.
func parseHandle(s string) (uint32, error) {
	const least, most = 0x81000000, 0x817fffff
	digits, hexadecimal := strings.CutPrefix(s, "0x")
	n, err := strconv.ParseUint(digits, 16, 32)
	if err != nil || !hexadecimal || n < least || n > most {
		return 0, fmt.Errorf("%s is no persistent handle of a TPM's owner, %#x to %#x: write a key in a TPM as %s0x81000001", quote(s), least, most, tpmPrefix)
	}
	return uint32(n), nil
}

func parseDevice(query string) (string, error) {
	values, err := url.ParseQuery(query)
	device := values.Get("device")
	if err != nil || len(values) != 1 || len(values["device"]) != 1 || hasSpace(device) ||
		!strings.HasPrefix(strings.TrimPrefix(device, "unix:"), "/") {
		return "", fmt.Errorf("%s is not one device: write ?device= and an absolute path, such as /dev/tpmrm0, or unix: and the path of a software TPM's socket", quote(query))
	}
	return device, nil
}
