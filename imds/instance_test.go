package imds_test

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/svidecar/svidecar/imds"
)

const document = `{ "compute": { "location": "westeurope", "vmId": "1", "tagsList": [ { "name": "a", "value": "b & c" } ] }, "network": {} }`

func TestParseInstanceRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ text, says string }{
		"nothing":           {"", "not JSON"},
		"two documents":     {"{}{}", "not JSON"},
		"a list":            {"[]", "not an object"},
		"a text":            {`"a"`, "not an object"},
		"a number":          {`{"compute":{"a":1}}`, "/compute/a/ is neither"},
		"true":              {`{"a":true}`, "in quotes"},
		"null":              {`{"a":null}`, "neither"},
		"a name twice":      {`{"a":"1","a":"2"}`, "twice"},
		"a name in two":     {`{"a":"1","A":"2"}`, "twice"},
		"an empty name":     {`{"":"1"}`, "no path can hold"},
		"a name by slashes": {`{"a/b":"1"}`, "no path can hold"},
		"not ASCII":         {`{"ä":"1"}`, "no path can hold"},
		"too deep":          {strings.Repeat(`{"a":`, 40) + `"x"` + strings.Repeat("}", 40), "nested"},
		"too large":         {`{"a":"` + strings.Repeat("x", 1<<20) + `"}`, "larger"},
	} {
		if got, err := imds.ParseInstance([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: ParseInstance = %v, %v; want an error that says %q", name, got, err, tt.says)
		}
	}
}

func TestInstance(t *testing.T) {
	instance, err := imds.ParseInstance([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		path    string
		text    bool
		body    string
		outcome imds.Outcome
	}{
		{"", false, `{"compute":{"location":"westeurope","vmId":"1","tagsList":[{"name":"a","value":"b & c"}]},"network":{}}`, imds.OK},
		{"/compute", true, "location\nvmId\ntagsList/", imds.OK},
		{"", true, "compute/\nnetwork/", imds.OK},
		{"/compute/location", true, "westeurope", imds.OK},
		{"/compute/vmid", true, "1", imds.OK},
		{"/compute/tagslist/0", false, `{"name":"a","value":"b & c"}`, imds.OK},
		{"/compute/tagslist/0/value", true, "b & c", imds.OK},
		{"/network", false, "{}", imds.OK},
		{"/compute/location", false, "", imds.InvalidRequest},
		{"/compute/tagslist/1", false, "", imds.NotFound},
		{"/compute/location/x", true, "", imds.NotFound},
		{"/x", false, "", imds.NotFound},
	} {
		w := httptest.NewRecorder()
		err := instance.Write(w, tt.path, imds.Metadata{Text: tt.text})
		var refusal *imds.Refusal
		if errors.As(err, &refusal) {
			if refusal.Outcome != tt.outcome || w.Body.Len() > 0 {
				t.Errorf("%s: %v, body %q; want %v alone", tt.path, refusal, w.Body, tt.outcome)
			}
			continue
		}
		kind := "application/json; charset=utf-8"
		if tt.text {
			kind = "text/plain; charset=utf-8"
		}
		if err != nil || tt.outcome != imds.OK || w.Body.String() != tt.body || w.Header().Get("Content-Type") != kind {
			t.Errorf("%s: %v, %s %q; want %s %q", tt.path, err, w.Header().Get("Content-Type"), w.Body, kind, tt.body)
		}
	}
}

func TestParseMetadataRefuses(t *testing.T) {
	for _, query := range []string{"format=xml", "format=", "format=json&Format=json", "a;b", "%", "x=" + strings.Repeat("x", 8<<10)} {
		if got, err := imds.ParseMetadata(query); err == nil {
			t.Errorf("ParseMetadata(%q) = %v, want an error", query, got)
		}
	}
	if got, err := imds.ParseMetadata("API-Version=2021-02-01&FORMAT=Text&x"); err != nil || got != (imds.Metadata{APIVersion: "2021-02-01", Text: true}) {
		t.Errorf("ParseMetadata = %v, %v", got, err)
	}
}

func FuzzParseInstance(f *testing.F) {
	f.Add([]byte(document), "/compute/tagslist/0")
	f.Add([]byte(`{"a":[[["x"]]]}`), "/a/0/0/0")
	f.Fuzz(func(_ *testing.T, data []byte, path string) {
		instance, err := imds.ParseInstance(data)
		if err != nil {
			return
		}
		for _, text := range []bool{false, true} {
			_ = instance.Write(httptest.NewRecorder(), path, imds.Metadata{Text: text})
		}
	})
}
