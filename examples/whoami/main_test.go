package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRead(t *testing.T) {
	for name, tt := range map[string]struct {
		token, fault string
		want         line
	}{
		// {"appid":"a","tid":"t","aud":"r","secret":"s"}
		"claims":      {"e30.eyJhcHBpZCI6ImEiLCJ0aWQiOiJ0IiwiYXVkIjoiciIsInNlY3JldCI6InMifQ.c2ln", "", line{AppID: "a", Tenant: "t", Audience: "r"}},
		"no JWT":      {"opaque", "no JWT", line{}},
		"not base64":  {"e30.+.c2ln", "not base64url", line{}},
		"not an JSON": {"e30.eyJh.c2ln", "not JSON", line{}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := read(tt.token)
			if (err == nil) != (tt.fault == "") || err != nil && (!strings.Contains(err.Error(), tt.fault) || strings.Contains(err.Error(), tt.token)) {
				t.Errorf("the error is %v, want %q and not the token", err, tt.fault)
			}
			if err == nil {
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			}
		})
	}
}
