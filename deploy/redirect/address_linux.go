package redirect

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// loAddress is the address as lo has it: for this host alone, and never the
// source of what goes elsewhere.
func (p *Plan) loAddress() *netlink.Addr {
	return &netlink.Addr{
		IPNet: &net.IPNet{IP: p.cfg.Address.AsSlice(), Mask: net.CIDRMask(32, 32)},
		Scope: unix.RT_SCOPE_HOST,
	}
}

func (p *Plan) setAddress() error {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err == nil {
		err = netlink.AddrReplace(lo, p.loAddress())
	}
	return explainLink(err)
}

func (p *Plan) removeAddress() error {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.AddrDel(lo, p.loAddress())
	}
	if errors.Is(err, unix.EADDRNOTAVAIL) { // it is not there
		return nil
	}
	return explainLink(err)
}

func explainLink(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrPermission):
		return errNetAdmin
	default:
		return fmt.Errorf("the address of lo: %w: try --method nftables", err)
	}
}

// addressDiffers asks which way the kernel would send, which is what counts: a
// rule of policy routing could come before the address.
func (p *Plan) addressDiffers() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return explainLink(err)
	}
	if lo.Attrs().Flags&net.FlagUp == 0 {
		return errors.New("the link lo is down")
	}
	routes, err := netlink.RouteGet(p.cfg.Address.AsSlice())
	if err != nil {
		return explainLink(err)
	}
	if len(routes) != 1 || routes[0].Type != unix.RTN_LOCAL || routes[0].LinkIndex != lo.Attrs().Index {
		return fmt.Errorf("%s is not an address of lo", p.cfg.Address)
	}
	return nil
}
