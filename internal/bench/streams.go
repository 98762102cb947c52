package main

import (
	"bytes"
	"context"
	"crypto/cipher"
	"crypto/rand"
	"io"
	"sync"

	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/stream"
)

const chunk = stream.DefaultSegment

var streamPlace = stream.Place{Label: "bench", Data: make([]byte, 32)}

// streamRows compares a whole stream, with its header and its last segment, with
// the standard library's AES-256-GCM over chunks as long as a segment, on one
// goroutine and with a key that is ready. Where one side reads from an io.Reader
// the other does, too.
func streamRows(cfg config) []row {
	long := 64 << 20
	if cfg.quick {
		long = 1 << 20
	}
	sizes := []struct {
		what  string
		bytes int
		goals [3]float64 // by workers
		ops   int
	}{
		{"64 MiB", long, [3]float64{1: 1.05, 2: 0.60}, 1},
		{"1 MiB", 1 << 20, [3]float64{2: 0.80}, 0},
		{"64 KiB", chunk, [3]float64{2: 1.05}, 0},
	}
	out := []row{{
		group: "what there is to gain: chunks on two goroutines, in no order, against one", what: "seal 64 MiB", ops: 1,
		prepare: func() (trial, error) { return sealChunks(long) },
	}}
	for workers, group := range []string{1: "stream, one worker, against chunks of 64 KiB", 2: "stream, two workers, against chunks of 64 KiB on one goroutine"} {
		if workers == 0 {
			continue
		}
		for _, sz := range sizes {
			line := row{group: group, goal: sz.goals[workers], ops: sz.ops}
			line.what, line.prepare = "seal "+sz.what, func() (trial, error) { return sealStream(workers, sz.bytes) }
			out = append(out, line)
			line.what, line.prepare = "open "+sz.what, func() (trial, error) { return openStream(workers, sz.bytes) }
			out = append(out, line)
		}
	}
	return out
}

func streamKeys() (stream.Keys, *gcm, error) {
	dek, raw, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	st, err := installAll([]key.ID{keyID}, []key.DEK{dek})
	if err != nil {
		return nil, nil, err
	}
	if err := st.Activate(keyID); err != nil {
		return nil, nil, err
	}
	return st, raw, nil
}

func sealStream(workers, size int) (trial, error) {
	keys, raw, err := streamKeys()
	if err != nil {
		return trial{}, err
	}
	plaintext := make([]byte, size)
	rand.Read(plaintext)
	nonce, aad, dst := make([]byte, 12), make([]byte, 9), make([]byte, 0, chunk+stream.Overhead)
	return trial{
		ours: []work{func(n int) {
			for range n {
				if err := writeStream(io.Discard, keys, plaintext, workers); err != nil {
					panic(err) // nothing that can fail
				}
			}
		}},
		raw: []work{func(n int) {
			for range n {
				for i := 0; i < size; i += chunk {
					raw.Seal(dst, nonce, plaintext[i:i+chunk], aad)
				}
			}
		}},
	}, nil
}

// sealChunks has no order to keep and nothing to write. On a machine whose second
// processor is busy it is what to compare the goals with.
func sealChunks(size int) (trial, error) {
	_, raw, err := newKey()
	if err != nil {
		return trial{}, err
	}
	plaintext, nonce, aad := make([]byte, size), make([]byte, 12), make([]byte, 9)
	rand.Read(plaintext)
	seal := func(plaintext []byte) {
		dst := make([]byte, 0, chunk+stream.Overhead)
		for len(plaintext) > 0 {
			raw.Seal(dst, nonce, plaintext[:chunk], aad)
			plaintext = plaintext[chunk:]
		}
	}
	return trial{
		ours: []work{func(n int) {
			for range n {
				var wg sync.WaitGroup
				wg.Go(func() { seal(plaintext[:size/2]) })
				seal(plaintext[size/2:])
				wg.Wait()
			}
		}},
		raw: []work{func(n int) {
			for range n {
				seal(plaintext)
			}
		}},
	}, nil
}

func writeStream(dst io.Writer, keys stream.Keys, plaintext []byte, workers int) error {
	w, err := stream.NewWriter(context.Background(), dst, keys, streamPlace, stream.WithWorkers(workers))
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := w.Write(plaintext); err != nil {
		return err
	}
	return w.Close()
}

func openStream(workers, size int) (trial, error) {
	keys, raw, err := streamKeys()
	if err != nil {
		return trial{}, err
	}
	plaintext := make([]byte, size)
	rand.Read(plaintext)
	var sealed bytes.Buffer
	if err := writeStream(&sealed, keys, plaintext, workers); err != nil {
		return trial{}, err
	}
	var (
		nonce, aad = make([]byte, 12), make([]byte, 9)
		chunks     = make([]byte, 0, size+size/chunk*16)
		buf        = make([]byte, chunk+16)
	)
	for i := 0; i < size; i += chunk {
		chunks = raw.Seal(chunks, nonce, plaintext[i:i+chunk], aad)
	}
	if err := readStream(sealed.Bytes(), keys, workers, size); err != nil {
		return trial{}, err
	}
	return trial{
		ours: []work{func(n int) {
			for range n {
				if err := readStream(sealed.Bytes(), keys, workers, size); err != nil {
					panic(err) // it worked before
				}
			}
		}},
		raw: []work{func(n int) {
			for range n {
				if err := readChunks(bytes.NewReader(chunks), raw, nonce, aad, buf); err != nil {
					panic(err)
				}
			}
		}},
	}, nil
}

func readStream(sealed []byte, keys stream.Keys, workers, size int) error {
	r, err := stream.NewReader(context.Background(), bytes.NewReader(sealed), keys, streamPlace, stream.WithWorkers(workers))
	if err != nil {
		return err
	}
	n, err := r.WriteTo(io.Discard)
	if err == nil && n != int64(size) {
		err = errDiffers
	}
	return err
}

func readChunks(r io.Reader, raw cipher.AEAD, nonce, aad, buf []byte) error {
	for {
		if _, err := io.ReadFull(r, buf); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if _, err := raw.Open(buf[:0], nonce, buf, aad); err != nil {
			return err
		}
	}
}
