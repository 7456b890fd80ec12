package config

import (
	"net/url"
	"slices"
)

// cloud is one of Microsoft's separate instances of Entra ID.
type cloud struct {
	name, authority, audience string
	hosts                     []string // every host that serves it
}

var clouds = []cloud{
	{
		name: "public", authority: "https://login.microsoftonline.com/", audience: "api://AzureADTokenExchange",
		hosts: []string{"login.microsoftonline.com", "login.windows.net", "login.microsoft.com", "sts.windows.net"},
	},
	{
		name: "usgov", authority: "https://login.microsoftonline.us/", audience: "api://AzureADTokenExchangeUSGov",
		hosts: []string{"login.microsoftonline.us", "login.usgovcloudapi.net"},
	},
	{
		name: "china", authority: "https://login.partner.microsoftonline.cn/", audience: "api://AzureADTokenExchangeChina",
		hosts: []string{"login.partner.microsoftonline.cn", "login.chinacloudapi.cn"},
	},
}

func cloudNames() []string {
	var names []string
	for _, c := range clouds {
		names = append(names, c.name)
	}
	return names
}

// cloudNamed gives the zero cloud for a name that is none.
func cloudNamed(name string) cloud {
	for _, c := range clouds {
		if c.name == name {
			return c
		}
	}
	return cloud{}
}

// cloudServing gives the zero cloud if the authority is not a well-known host.
func cloudServing(authority string) cloud {
	u, err := url.Parse(authority)
	if err != nil || (u.Port() != "" && u.Port() != "443") {
		return cloud{}
	}
	for _, c := range clouds {
		if slices.Contains(c.hosts, u.Hostname()) {
			return c
		}
	}
	return cloud{}
}

func cloudOfAuthority(c *Config) (value, from string) {
	return cloudServing(c.AuthorityHost).name, "authority-host"
}

func authorityOfCloud(c *Config) (value, from string) { return cloudNamed(c.Cloud).authority, "cloud" }

func audienceOfCloud(c *Config) (value, from string) { return cloudNamed(c.Cloud).audience, "cloud" }
