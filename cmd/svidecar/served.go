package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/svidecar/svidecar/mint/keydir"
)

// missing says which keys are not served, and by when that must be mended.
func missing(keys []keydir.Key, served []string) error {
	var all []error
	for _, key := range keys {
		switch {
		case slices.Contains(served, key.ID):
		case key.SignsFrom.IsZero():
			all = append(all, fmt.Errorf("key %s (%v) is not served: export and upload the documents", key.ID, key.State))
		default:
			all = append(all, fmt.Errorf("key %s (%v) is not served: upload the documents; it signs from %s", key.ID, key.State, key.SignsFrom.Format(time.RFC3339)))
		}
	}
	for _, kid := range served {
		if !slices.ContainsFunc(keys, func(key keydir.Key) bool { return key.ID == kid }) {
			all = append(all, fmt.Errorf("key %s is served, and is not in the directory: if nobody else signs for this issuer, upload the documents again, lest it be a stolen one", kid))
		}
	}
	return errors.Join(all...)
}
