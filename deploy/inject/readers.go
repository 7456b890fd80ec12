package inject

import (
	"errors"
	"strconv"
	"strings"
)

// errNotAllowed is a value that is not what the table allows.
var errNotAllowed = errors.New("not allowed")

func readMode(w *wish, value string) error {
	for _, m := range modes {
		if string(m) == value {
			w.mode, w.modeFrom = m, "annotation "+ours+"mode"
			return nil
		}
	}
	return errNotAllowed
}

func readSource(w *wish, value string) error {
	w.spiffe = value == "spiffe"
	if !w.spiffe && value != "file" {
		return errNotAllowed
	}
	return nil
}

func readPort(w *wish, value string) error {
	w.portChosen = true
	return readTheirPort(w, value)
}

func readTheirPort(w *wish, value string) error { return readNumber(&w.port, value, 1, 65535) }

func readOpsPort(w *wish, value string) error { return readNumber(&w.opsPort, value, 1, 65535) }

func readExpiration(w *wish, value string) error {
	return readNumber(&w.expiration, value, minExpiration, maxExpiration)
}

func readUser(w *wish, value string) error {
	w.userChosen = true
	return readNumber(&w.runAsUser, value, 1, maxUID)
}

// readNumber takes digits only: no sign, no space, no leading zero.
func readNumber[N int | int64](at *N, value string, low, high int64) error {
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n < low || n > high || strconv.FormatInt(n, 10) != value {
		return errNotAllowed
	}
	*at = N(n)
	return nil
}

func readScrape(w *wish, value string) (err error) {
	w.scrape, err = readBool(value)
	return err
}

func readBool(value string) (bool, error) {
	if value != "true" && value != "false" {
		return false, errNotAllowed
	}
	return value == "true", nil
}

func readSkip(w *wish, value string) (err error) {
	w.skip, err = readNames(value)
	return err
}

func readSkipUse(w *wish, value string) (err error) {
	w.skipUse, err = readNames(value)
	return err
}

// readNames splits at semicolons, as azure-workload-identity does.
func readNames(value string) ([]string, error) {
	var names []string
	for name := range strings.SplitSeq(value, ";") {
		if name = strings.TrimSpace(name); name == "" || strings.ContainsAny(name, ", \t\n") {
			return nil, errNotAllowed
		}
		names = append(names, name)
	}
	return names, nil
}

func readQuantity(at func(*Resources) *string) func(*wish, string) error {
	return func(w *wish, value string) error {
		if amount(value) <= 0 {
			return errNotAllowed
		}
		*at(&w.resources), *at(&w.chosen) = value, value
		return nil
	}
}
