package imds

import (
	"encoding/json"
	"net/http"
	"strings"
)

// Metadata is a validated request for something beside the token.
type Metadata struct {
	APIVersion string // as asked; empty if absent
	Text       bool   // format=text
}

// ParseMetadata reads the query of such a request, by the rules of
// [ParseRequest]. The error is a *Refusal.
func ParseMetadata(query string) (Metadata, error) {
	if err := checkText("query", query, maxQuery); err != nil {
		return Metadata{}, err
	}
	var m Metadata
	formats := 0
	for pair := range strings.SplitSeq(query, "&") {
		name, value, err := decode(pair)
		if err != nil {
			return Metadata{}, err
		}
		switch name {
		case "api-version":
			m.APIVersion = value
		case "format":
			formats++
			m.Text = strings.EqualFold(value, "text")
			if formats > 1 || !m.Text && !strings.EqualFold(value, "json") {
				return Metadata{}, refuse(InvalidRequest, "the parameter 'format' must be given once at most, as json or text")
			}
		}
	}
	return m, nil
}

// versions are those that clients of the token path ask for. Others are served
// just as well.
var versions = []string{"2018-02-01", "2019-08-01", "2019-11-01", "2020-06-01", "2021-02-01"}

// WriteVersions answers /metadata/versions. An error means that the client is
// gone.
func WriteVersions(w http.ResponseWriter) error {
	return sendJSON(w, struct {
		Versions []string `json:"apiVersions"`
	}{versions})
}

// WriteTenant answers /metadata/identity/info.
func WriteTenant(w http.ResponseWriter, tenant string) error {
	return sendJSON(w, struct {
		Tenant string `json:"tenantId"`
	}{tenant})
}

func sendJSON(w http.ResponseWriter, value any) error {
	body, err := json.Marshal(value)
	if err != nil {
		panic("imds: internal error: strings do not marshal: " + err.Error())
	}
	return send(w, http.StatusOK, body)
}
