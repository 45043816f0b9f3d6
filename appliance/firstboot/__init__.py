"""What a person wrote on the FAT partition becomes the settings of the machine."""
