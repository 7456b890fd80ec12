package redirect

import (
	"errors"
	"fmt"
	"os"
	"reflect"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

func ourTable() *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyIPv4, Name: tableName}
}

// ourChain names its policy, which a tampered chain could have changed to drop.
func ourChain(t *nftables.Table) *nftables.Chain {
	accept := nftables.ChainPolicyAccept
	return &nftables.Chain{
		Name: chainName, Table: t,
		Type:     nftables.ChainTypeNAT,
		Hooknum:  nftables.ChainHookOutput,
		Priority: nftables.ChainPriorityRef(priority),
		Policy:   &accept,
	}
}

// ruleExprs is the rule as nft compiles the line of the plan. Values are written
// as the kernel gives them back, so that the two can be compared as they are.
func (p *Plan) ruleExprs() []expr.Any {
	address := p.cfg.Address.As4()
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4}, // ip daddr
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: address[:]},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}, // tcp dport
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(imdsPort)},
		&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(uint16(p.cfg.Port))},
		&expr.Redir{RegisterProtoMin: 1, RegisterProtoMax: 1, Flags: unix.NF_NAT_RANGE_PROTO_SPECIFIED},
	}
}

// setTable replaces the table as a whole, in one transaction: there is no moment
// without a rule. Adding before deleting makes the deletion of what may not be
// there no error.
func (p *Plan) setTable() error {
	conn, err := nftables.New()
	if err != nil {
		return explainNFT(err)
	}
	t := ourTable()
	conn.AddTable(t)
	conn.DelTable(t)
	conn.AddTable(t)
	c := conn.AddChain(ourChain(t))
	conn.AddRule(&nftables.Rule{Table: t, Chain: c, Exprs: p.ruleExprs()})
	return explainNFT(conn.Flush())
}

func removeTable() error {
	conn, err := nftables.New()
	if err != nil {
		return explainNFT(err)
	}
	t := ourTable()
	conn.AddTable(t)
	conn.DelTable(t)
	return explainNFT(conn.Flush())
}

// explainNFT says what to do about an error of netlink's.
func explainNFT(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrPermission):
		return errNetAdmin
	default:
		return fmt.Errorf("nftables: %w: the kernel needs nf_tables, nft_chain_nat and nft_redir; without them use --method address", err)
	}
}

// tableDiffers compares all of the table: its flags (a dormant one does nothing),
// its chains and its rules. Further ones could decide before ours does.
func (p *Plan) tableDiffers() error {
	// One socket for all questions: to close one takes the kernel longer
	// than to answer.
	conn, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return explainNFT(err)
	}
	defer func() { _ = conn.CloseLasting() }()
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return explainNFT(err)
	}
	t := ourTable()
	found := 0
	for _, have := range tables {
		if have.Name == t.Name {
			found++
			t.Flags = have.Flags
		}
	}
	switch {
	case found != 1:
		return fmt.Errorf("there is no table ip %s", tableName)
	case t.Flags != 0:
		return fmt.Errorf("the table ip %s has the flags %#x, want none", tableName, t.Flags)
	}
	return p.chainsDiffer(conn, t)
}

func (p *Plan) chainsDiffer(conn *nftables.Conn, t *nftables.Table) error {
	all, err := conn.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return explainNFT(err)
	}
	var chains []*nftables.Chain
	for _, c := range all {
		if c.Table != nil && c.Table.Name == tableName {
			chains = append(chains, c)
		}
	}
	if len(chains) != 1 {
		return fmt.Errorf("the table ip %s has %d chains, want 1", tableName, len(chains))
	}
	chains[0].Table = t
	if !reflect.DeepEqual(chains[0], ourChain(t)) {
		return fmt.Errorf("the chain of the table ip %s is called, or hooked, in another way than planned", tableName)
	}
	rules, err := conn.GetRules(t, chains[0])
	if err != nil {
		return explainNFT(err)
	}
	if len(rules) != 1 || !reflect.DeepEqual(rules[0].Exprs, p.ruleExprs()) {
		return fmt.Errorf("the chain %s of the table ip %s has %d rules, want the one that is planned alone", chainName, tableName, len(rules))
	}
	return nil
}
