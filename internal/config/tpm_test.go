package config_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svidecar/svidecar/internal/config"
)

func keyFile(t testing.TB, value string) (*config.Config, error) {
	t.Helper()
	args := []string{"--source=local", "--issuer=https://issuer.example", "--subject=s", "--key-file=" + value}
	return load(t, args, []string{"AZURE_TENANT_ID=" + tenant})
}

func TestTPMRefuses(t *testing.T) {
	const handle = ` is no persistent handle of a TPM's owner, 0x81000000 to 0x817fffff: write a key in a TPM as tpm:0x81000001`
	const device = ` is not one device: write ?device= and an absolute path, such as /dev/tpmrm0, or unix: and the path of a software TPM's socket`
	for _, tt := range []struct{ value, want string }{
		{"tpm:", `""` + handle},
		{"tpm:81000001", `"81000001"` + handle},
		{"tpm:0X81000001", `"0X81000001"` + handle},
		{"tpm:2164260865", `"2164260865"` + handle},
		{"tpm:0x80ffffff", `"0x80ffffff"` + handle},
		{"tpm:0x81800000", `"0x81800000"` + handle},
		{"tpm:0x181000001", `"0x181000001"` + handle},
		{"tpm:0x81_000001", `"0x81_000001"` + handle},
		{"tpm:0x+1000001", `"0x+1000001"` + handle},
		{"tpm:/dev/tpmrm0", `"/dev/tpmrm0"` + handle},
		{"tpm:0x81000001?", `""` + device},
		{"tpm:0x81000001?device=", `"device="` + device},
		{"tpm:0x81000001?device=tpmrm0", `"device=tpmrm0"` + device},
		{"tpm:0x81000001?device=unix:tpm", `"device=unix:tpm"` + device},
		{"tpm:0x81000001?device=tcp://127.0.0.1:2321", `"device=tcp://127.0.0.1:2321"` + device},
		{"tpm:0x81000001?device=/dev/a&device=/dev/b", `"device=/dev/a&device=/dev/b"` + device},
		{"tpm:0x81000001?devise=/dev/tpm0", `"devise=/dev/tpm0"` + device},
		{"tpm:0x81000001?device=/dev/tpm0&auth=x", `"device=/dev/tpm0&auth=x"` + device},
		{"tpm:0x81000001?device=/dev/tpm%00", `"device=/dev/tpm%00"` + device},
		{"tpm:0x81000001?device=/dev/%zz", `"device=/dev/%zz"` + device},
	} {
		_, err := keyFile(t, tt.value)
		wantError(t, err, "key-file (from flag --key-file): "+tt.want)
		if key, ok := config.TPM(tt.value); ok {
			t.Errorf("TPM(%q) = %+v", tt.value, key)
		}
	}
}

func TestTPM(t *testing.T) {
	for _, tt := range []struct {
		value string
		want  config.TPMKey
	}{
		{"tpm:0x81000000", config.TPMKey{Handle: 0x81000000}},
		{"tpm:0x817FFFFF", config.TPMKey{Handle: 0x817fffff}},
		{"tpm:0x81000001?device=/dev/tpm0", config.TPMKey{Handle: 0x81000001, Device: "/dev/tpm0"}},
		{"tpm:0x81000001?device=unix:/run/swtpm/socket", config.TPMKey{Handle: 0x81000001, Device: "unix:/run/swtpm/socket"}},
	} {
		c, err := keyFile(t, tt.value)
		if err != nil {
			t.Errorf("--key-file=%s: %v", tt.value, err)
			continue
		}
		if got, ok := config.TPM(c.Sources[0].KeyFile); !ok || !cmp.Equal(got, tt.want) {
			t.Errorf("TPM(%q) = %+v, %v, want %+v", c.Sources[0].KeyFile, got, ok, tt.want)
		}
	}
	for _, path := range []string{"key.pem", "/tpm:0x81000001", "./tpm:0x81000001", "TPM:0x81000001"} {
		if _, err := keyFile(t, path); err != nil {
			t.Errorf("--key-file=%s: %v", path, err)
		}
		if key, ok := config.TPM(path); ok {
			t.Errorf("TPM(%q) = %+v: it is a path", path, key)
		}
	}
}

// FuzzTPM holds that what loads as a key in a TPM has a handle of the owner's and
// at most one absolute path.
func FuzzTPM(f *testing.F) {
	for _, seed := range []string{"", "0x81000001", "0x81000001?device=/dev/tpm0", "0x81000001?device=unix:/a", "0x81000001?device=%2Fa", "?", "0x81000001?&", "0x81000001?device=/a;b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, rest string) {
		value := "tpm:" + rest
		_, err := keyFile(t, value)
		key, ok := config.TPM(value)
		if ok != (err == nil) {
			t.Fatalf("%q: TPM says %v, Load %v", value, ok, err)
		}
		if !ok {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%q: the error has several lines: %v", value, err)
			}
			return
		}
		path := strings.TrimPrefix(key.Device, "unix:")
		if key.Handle>>20 < 0x810 || key.Handle>>20 > 0x817 || (path != "" && path[0] != '/') || (path == "" && key.Device != "") || strings.ContainsAny(key.Device, "\x00\n\r") {
			t.Errorf("%q gives %+v", value, key)
		}
	})
}
