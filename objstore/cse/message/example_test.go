package message_test

import (
	"fmt"

	"coffer/objstore/cse/message"
)

// A message is written in frames, and a range of it is read: the final frame
// proves the size, then the frames of the range are opened.
func Example() {
	key := message.GenerateDataKey(message.Committed)
	edks := []message.EDK{{Provider: "namespace", Info: "name", Ciphertext: []byte("the key, wrapped by a keyring")}}

	s, err := message.NewSealer(key, message.Context{}, edks, 8)
	if err != nil {
		panic(err)
	}
	object := s.Header()
	for i, frame := range []string{"Frames a", "re authe", "nticated"} {
		if object, err = s.Seal(object, int64(i), []byte(frame)); err != nil {
			panic(err)
		}
	}
	if object, err = s.SealFinal(object, []byte(" alone.")); err != nil {
		panic(err)
	}

	h, err := message.ParseHeader(object)
	if err != nil {
		panic(err)
	}
	o, err := message.NewOpener(h, key, message.Context{})
	if err != nil {
		panic(err)
	}
	layout, _, err := o.Locate(nil, int64(len(object)), object[len(object)-100:])
	if err != nil {
		panic(err)
	}
	fmt.Println(layout.Size(), "bytes")

	var plain []byte
	first, end := layout.Cover(10, 14)
	for i := first; i < end; i++ {
		frame := object[layout.Offset(i):][:layout.Bytes(i)]
		if plain, err = o.Open(plain, i, frame); err != nil {
			panic(err)
		}
	}
	fmt.Printf("%s\n", plain[10-first*layout.Frame:])

	object[layout.Offset(1)+20] ^= 1
	_, err = o.Open(nil, 1, object[layout.Offset(1):][:layout.Bytes(1)])
	fmt.Println(err)
	// Output:
	// 31 bytes
	//  authenticated
	// message not authentic: frame 1: its tag does not fit
}
