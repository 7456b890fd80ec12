//go:build e2e && linux

package clients_test

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// language is a folder of testdata: a lock file and a program that asks by each
// client named in the lock file.
type language struct {
	name    string
	lock    string
	install func(dir string) [][]string // commands, run in dir, which holds a copy of the folder
	command func(dir string) []string   // runs the program
}

var languages = []language{
	{
		name: "python", lock: "requirements.txt",
		install: func(string) [][]string { return virtualEnvironment("venv", "requirements.txt") },
		command: func(dir string) []string { return []string{dir + "/venv/bin/python", dir + "/client.py"} },
	},
	{
		name: "node", lock: "package-lock.json",
		install: func(dir string) [][]string {
			return [][]string{{"npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"}}
		},
		command: func(dir string) []string { return []string{"node", dir + "/client.mjs"} },
	},
	{
		name: "go", lock: "go.sum",
		install: goBuild,
		command: func(dir string) []string { return []string{dir + "/client"} },
	},
	{
		name: "java", lock: "jars.sha256",
		install: func(string) [][]string {
			return [][]string{
				{"mvn", "--batch-mode", "--quiet", "--strict-checksums",
					"org.apache.maven.plugins:maven-dependency-plugin:3.9.0:copy-dependencies", "-DoutputDirectory=lib", "-DincludeScope=runtime"},
				{"sh", "-c", "cd lib && sha256sum *.jar | diff - ../jars.sha256"}, // neither more nor other ones
				{"javac", "--release", "17", "-cp", "lib/*", "-d", "classes", "Client.java"},
			}
		},
		command: func(dir string) []string { return []string{"bash", dir + "/client.sh"} },
	},
	{
		name: "rust", lock: "Cargo.lock",
		install: func(string) [][]string { return [][]string{{"cargo", "build", "--release", "--locked", "--quiet"}} },
		command: func(dir string) []string { return []string{dir + "/target/release/client"} },
	},
	{
		name: "azure-cli", lock: "requirements.txt",
		install: func(string) [][]string {
			return append(virtualEnvironment("venv", "requirements.txt"), virtualEnvironment("venv-2.72", "requirements-2.72.txt")...)
		},
		command: func(dir string) []string { return []string{dir + "/venv/bin/python", dir + "/client.py"} },
	},
	{
		name: "curl", lock: "client.sh",
		install: func(string) [][]string { return [][]string{{"curl", "--version"}} },
		command: func(dir string) []string { return []string{"bash", dir + "/client.sh"} },
	},
}

func goBuild(string) [][]string {
	return [][]string{{"go", "build", "-mod=readonly", "-o", "client", "."}}
}

// virtualEnvironment installs the wheels of a lock file for Python, and nothing else.
func virtualEnvironment(dir, lock string) [][]string {
	return [][]string{
		{"python3", "-m", "venv", dir},
		{dir + "/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--require-hashes", "-r", lock},
		{dir + "/bin/python", "-m", "compileall", "-q", dir + "/lib"},
	}
}

// folder and fault are the variables by which the inner run learns where a
// language's clients are, or why there are none.
func (l language) folder() string { return "CLIENTS_DIR_" + strings.ToUpper(l.name) }
func (l language) fault() string  { return "CLIENTS_FAULT_" + strings.ToUpper(l.name) }

// install fetches each language's clients, and gives the variables for the inner run.
func install() (env []string) {
	for _, l := range append(slices.Clone(languages), consumerModule, dotnet) {
		if dir, err := l.fetch(); err != nil {
			env = append(env, l.fault()+"="+err.Error())
		} else {
			env = append(env, l.folder()+"="+dir)
		}
	}
	return env
}

// fetch keeps the clients in the user's cache, by what testdata holds for them: a
// folder is there whole or not at all, and two runs at once do not both install it.
func (l language) fetch() (string, error) {
	source := filepath.Join("testdata", l.name)
	sum, err := digest(source)
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "svidecar", "e2e-clients", l.name+"-"+sum)
	unlock, err := lock(dir + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(filepath.Join(dir, "complete")); err == nil {
		return dir, nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	if err := os.CopyFS(dir, os.DirFS(source)); err != nil {
		return "", err
	}
	for _, step := range l.install(dir) {
		cmd := exec.Command(step[0], step[1:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("%v: %w: %s", cmd, err, lastLine(out))
		}
	}
	return dir, os.WriteFile(filepath.Join(dir, "complete"), nil, 0o600)
}

// lock waits for the file's lock. The system gives it back when a process dies.
func lock(path string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), file.Close())
	}
	return func() { _ = file.Close() }, nil
}

func lastLine(out []byte) string {
	text := strings.TrimSpace(string(out))
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// digest is of all files in a folder.
func digest(dir string) (string, error) {
	sum := sha256.New()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		fmt.Fprintf(sum, "%q", path)
		_, err = io.Copy(sum, file)
		return err
	})
	return fmt.Sprintf("%x", sum.Sum(nil)[:8]), err
}

// have gives the command of a language's program, and its clients' versions.
func (l language) have(t *testing.T) (command []string, versions map[string]string) {
	t.Helper()
	dir := os.Getenv(l.folder())
	if dir == "" {
		why := cmp.Or(os.Getenv(l.fault()), skipped)
		if lenient {
			t.Skip(why)
		}
		t.Fatalf("%s; set %s to do without", why, allowSkip)
	}
	command = l.command(dir)
	out, err := newCommand(t, command, nil, "versions").Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &versions); err != nil {
		t.Fatal(err)
	}
	return command, versions
}
