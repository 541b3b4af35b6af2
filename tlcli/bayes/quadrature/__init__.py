"""Saddle points of networks on data of rank one or two, by quadrature."""
