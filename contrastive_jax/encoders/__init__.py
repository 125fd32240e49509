"""Encoders: images to features (`resnet`), features to embeddings (`heads`)."""
