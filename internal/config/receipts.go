package config

// Receipts is what senders' and receivers' sides must agree on about markers.
type Receipts struct {
	ReceiptMembers int `help:"Most members of a room with read and delivered receipts. Each receipt goes to all who look at the room." default:"100"`
}

func (c Receipts) check(p *problems) {
	p.between("receipt-members", int64(c.ReceiptMembers), 1, 10_000)
}
